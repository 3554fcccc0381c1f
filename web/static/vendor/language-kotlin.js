import{c as o}from"./chunk-JZKSOGJD.js";import{oa as e}from"./chunk-MZG4ORXT.js";var m=()=>e.define(o);export{m as default};
