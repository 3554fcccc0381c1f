import{b as e}from"./chunk-JZKSOGJD.js";import{oa as a}from"./chunk-MZG4ORXT.js";var o=()=>a.define(e);export{o as default};
