// The appliance's HTTP API. Addresses are relative to the page, which may live under a proxy's path prefix.

/** Something that a person can be told: a stable code, what happened, and what to do. */
export class Problem extends Error {
  constructor({ code, message, advice = "" }) {
    super(message);
    this.code = code;
    this.advice = advice;
  }
}

const UNREACHABLE = {
  code: "unreachable",
  message: "The appliance does not answer.",
  advice: "Check that it is switched on, that the service runs, and that this device is on the same network.",
};
const ANSWER_TIMEOUT_MS = 5000;

export const login = (token) => post("login", { token }, AbortSignal.timeout(ANSWER_TIMEOUT_MS));
export const logout = () => post("logout", {}, AbortSignal.timeout(ANSWER_TIMEOUT_MS));

/** The result of the command `type`. */
export async function command(type, parameters = {}) {
  const response = await post(`api/command/${type}`, parameters, AbortSignal.timeout(ANSWER_TIMEOUT_MS));
  return (await reached(response.json())).result;
}

/**
 * The events of a completion as they come: objects with `choices`, the last ones with `rockfill` and `usage`.
 * Aborting `signal` ends the run on the appliance too, and throws the AbortError on.
 */
export async function* complete(request, signal) {
  const body = { ...request, stream: true, stream_options: { include_usage: true } };
  const response = await post("v1/completions", body, signal);
  for await (const data of serverSentEvents(response.body)) {
    if (data === "[DONE]") return;
    const event = JSON.parse(data);
    if (event.error) throw new Problem(event.error);
    yield event;
  }
  throw new Problem({ code: "stream_cut", message: "The answer broke off before its end.", advice: "Ask again." });
}

async function* serverSentEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader(); // Safari cannot iterate over a stream
  let pending = "";
  for (;;) {
    const { done, value } = await reached(reader.read());
    if (done) return;
    const lines = (pending + value).split("\n");
    pending = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await reached(fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal }));
  if (response.ok) return response;
  const error = (await response.json().catch(() => null))?.error;
  if (error) throw new Problem(error);
  if (response.status >= 502) throw new Problem(UNREACHABLE); // a proxy, in the appliance's place
  throw new Problem({
    code: `http_${response.status}`,
    message: `The answer was ${response.status} ${response.statusText}, and not in the appliance’s words.`,
    advice: "Look at what stands between this page and the appliance.",
  });
}

/** What `promise` gives; every failure of the network is one problem, but our own abort stays what it is. */
async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem(UNREACHABLE);
  }
}
