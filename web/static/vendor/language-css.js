import{b as o}from"./chunk-DSQ6AF4W.js";import"./chunk-MX2MFVDR.js";import"./chunk-MZG4ORXT.js";var t=()=>o();export{t as default};
