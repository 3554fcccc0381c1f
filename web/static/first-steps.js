import { nothing } from "./parts.js";
export const firstSteps = () => nothing;
