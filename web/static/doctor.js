import { nothing } from "./parts.js";
export const doctorCard = () => ({ load() {}, draw: () => nothing });
