// Signing in and out. The token is exchanged for a cookie that no script can read.

import { Problem, UNREACHABLE } from "./problem.js";

const ANSWER_TIMEOUT_MS = 30_000; // as on the link: a board that is busy is slow, and not gone

export const login = (token) => post("login", { token });
export const logout = () => post("logout", {});

/** The token in the page's address, which is taken out of there at once, so that nobody copies or photographs it. */
export function tokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    });
  } catch {
    throw new Problem(UNREACHABLE);
  }
  if (response.ok) return;
  const error = (await response.json().catch(() => null))?.error;
  if (error) throw new Problem(error);
  if (response.status >= 502) throw new Problem(UNREACHABLE); // a proxy, in the appliance's place
  throw new Problem({
    code: `http_${response.status}`,
    message: `The answer was ${response.status} ${response.statusText}, and not in the appliance’s words.`,
    advice: "Look at what stands between this page and the appliance.",
  });
}
