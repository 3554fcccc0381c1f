import{e as t}from"./chunk-V6THQO6O.js";import"./chunk-R4RNBRYY.js";import"./chunk-MX2MFVDR.js";import"./chunk-MZG4ORXT.js";var e=()=>t({jsx:!0,typescript:!0});export{e as default};
