import { nothing } from "./parts.js";
export const clocksCard = () => ({ load() {}, draw: () => nothing });
