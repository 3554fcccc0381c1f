import{a as e}from"./chunk-JZKSOGJD.js";import{oa as r}from"./chunk-MZG4ORXT.js";var o=()=>r.define(e);export{o as default};
