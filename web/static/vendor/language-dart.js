import{d as e}from"./chunk-JZKSOGJD.js";import{oa as r}from"./chunk-MZG4ORXT.js";var m=()=>r.define(e);export{m as default};
