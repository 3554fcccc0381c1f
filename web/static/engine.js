// What the engine's state and the board's figures come to in words. Pure.

import { duration } from "./words.js";

const STATES = {
  stopped: "Not loaded",
  starting: "Starting",
  loading: "Loading",
  ready: "Ready",
  busy: "Working",
  stopping: "Stopping",
  failed: "Failed",
  closed: "Shut down",
};

export function stateWords(engine) {
  if (engine.paused) return "Paused";
  const word = STATES[engine.state] ?? engine.state;
  if (engine.state === "failed" && engine.next_retry_in_s !== null) return `${word}, next try in ${duration(engine.next_retry_in_s)}`;
  return word;
}

/** Whether a completion asked for now has a chance: a stopped engine is loaded for it. */
export const canComplete = (engine) => Boolean(engine) && !engine.paused && ["stopped", "starting", "loading", "ready", "busy"].includes(engine.state);

const known = (values) => values.filter((value) => value !== null && value !== undefined);
const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

/** The unit that computes, its load in percent and its temperature: the NPU where its load can be read, else the CPU. */
export function unitOf(figures) {
  const npu = known([figures?.["npu.load_percent"]].flat());
  if (npu.length) return { name: "NPU", load: mean(npu), celsius: figures["npu.temp_celsius"] };
  return { name: "CPU", load: figures?.["cpu.load_percent"] ?? null, celsius: figures?.["cpu.temp_celsius"] ?? null };
}
