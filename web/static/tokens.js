import { nothing } from "./parts.js";
export const tokensCard = () => ({ load() {}, draw: () => nothing });
