import{e as r}from"./chunk-V6THQO6O.js";import"./chunk-R4RNBRYY.js";import"./chunk-MX2MFVDR.js";import"./chunk-MZG4ORXT.js";var a=()=>r({jsx:!0});export{a as default};
