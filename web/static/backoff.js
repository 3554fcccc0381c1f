// When to try again, and what to say of a connection. Pure: no clock, no network.

const LONGEST_MS = 15_000;

/** How long to wait before attempt number `attempt` (0 is the first after a loss). `chance` in [0, 1) spreads pages. */
export function pauseMs(attempt, chance) {
  const full = Math.min(LONGEST_MS, 500 * 2 ** attempt);
  return Math.round(full * (0.75 + chance / 2));
}

/**
 * What a watch over the silence is to do now, "nothing", "ask" for a sign of life, or "give up", and in how many
 * milliseconds it is to look again.
 */
export function watch({ silentMs, askedMs }) {
  const leftMs = askedMs === null ? ASK_AFTER_MS - silentMs : ANSWER_WITHIN_MS - askedMs;
  if (leftMs > 0) return { act: "nothing", againMs: leftMs };
  return askedMs === null ? { act: "ask", againMs: ANSWER_WITHIN_MS } : { act: "give up", againMs: null };
}

export const ASK_AFTER_MS = 10_000; // events come every second where anything happens; an idle link is asked
export const ANSWER_WITHIN_MS = 5_000;
