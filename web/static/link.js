// The one websocket of the page: commands and their results, streams and subscriptions, and coming back by itself.

import { pauseMs, watch } from "./backoff.js";
import { Problem, UNREACHABLE } from "./problem.js";

const ANSWER_TIMEOUT_MS = 30_000;

/**
 * A connection that is made again whenever it breaks. `changed()` is called at every change of `status`:
 *
 * - `{ state: "connecting" }` before the first answer;
 * - `{ state: "open", version }`;
 * - `{ state: "lost", sinceMs, retryAtMs }` while it comes back by itself;
 * - `{ state: "refused" }` until `connect()` is called again: somebody has to sign in.
 */
export class Link {
  status = { state: "connecting" };
  #socket = null;
  #last = 0;
  #waiting = new Map(); // id → { result, failed, event }
  #subscriptions = new Map(); // key → { parameters, event }, asked for anew at every connection
  #attempt = 0;
  #retry = 0;
  #heardMs = 0;
  #askedMs = null;
  #watching = 0;

  constructor(address, changed) {
    this.address = address;
    this.changed = changed;
    addEventListener("online", () => this.retryNow());
  }

  /** Connect now, whatever the state is. */
  connect() {
    clearTimeout(this.#retry);
    this.#drop();
    const socket = (this.#socket = new WebSocket(this.address()));
    this.#heardMs = performance.now();
    this.#askedMs = null;
    socket.addEventListener("message", ({ data }) => socket === this.#socket && this.#received(JSON.parse(data)));
    socket.addEventListener("close", () => socket === this.#socket && this.#lost());
  }

  /** Give the connection up until `connect()`. */
  refuse() {
    clearTimeout(this.#retry);
    this.#drop();
    this.#become({ state: "refused" });
  }

  retryNow() {
    if (this.status.state === "lost") this.connect();
  }

  /** The result of the command `type`; a `Problem` if it was refused or the connection broke. */
  call(type, parameters = {}, { timeoutMs = ANSWER_TIMEOUT_MS } = {}) {
    return this.#send(type, parameters, null, timeoutMs);
  }

  /** As `call`; `event` gets what the command tells on the way. Gives the id, too, to cancel by. */
  stream(type, parameters, event) {
    const result = this.#send(type, parameters, event, 0);
    return { id: this.#last, result };
  }

  /** End hearing of the stream `id`. */
  forget(id) {
    this.#waiting.delete(id);
  }

  /** Keep a subscription under `key`, over every loss of the connection; null ends it. */
  subscribe(key, parameters, event) {
    const present = this.#subscriptions.get(key);
    if (present?.id && this.status.state === "open") {
      this.#waiting.delete(present.id);
      this.call("unsubscribe", { subscription: present.id }).catch(() => {});
    }
    if (parameters === null) return void this.#subscriptions.delete(key);
    this.#subscriptions.set(key, { parameters, event, id: 0 });
    if (this.status.state === "open") this.#subscribe(key);
  }

  #subscribe(key) {
    const entry = this.#subscriptions.get(key);
    const { id, result } = this.stream("subscribe", entry.parameters, entry.event);
    entry.id = id;
    result.catch((problem) => problem.code !== "unreachable" && console.warn(`subscribe: ${problem.message}`));
  }

  #send(type, parameters, event, timeoutMs) {
    return new Promise((resolve, reject) => {
      const id = ++this.#last;
      if (this.status.state !== "open") return reject(new Problem(UNREACHABLE));
      const timer = timeoutMs && setTimeout(() => {
        this.#waiting.delete(id);
        reject(new Problem({ code: "timeout", message: `The appliance did not answer within ${timeoutMs / 1000} s.`, advice: "Look at the board’s page for what it is doing, and try again." }));
      }, timeoutMs);
      this.#waiting.set(id, {
        event,
        settle: (failure, value) => {
          clearTimeout(timer);
          if (failure) reject(failure);
          else resolve(value);
        },
      });
      this.#socket.send(JSON.stringify({ ...parameters, id, type }));
    });
  }

  #received(message) {
    this.#heardMs = performance.now();
    this.#askedMs = null;
    const waiting = this.#waiting.get(message.id);
    switch (message.type) {
      case "auth_required":
        return this.refuse(); // the cookie would have spoken for us
      case "auth_ok":
        this.#attempt = 0;
        for (const entry of this.#subscriptions.values()) entry.id = 0; // it was of the connection before
        this.#watch();
        this.#become({ state: "open", version: message.version }); // who hears of it may subscribe at once
        for (const [key, entry] of this.#subscriptions) if (!entry.id) this.#subscribe(key);
        return;
      case "event":
        return waiting?.event?.(message.event);
      case "result":
        if (!waiting) return;
        if (!message.success) {
          this.#waiting.delete(message.id);
          return waiting.settle(new Problem(message.error));
        }
        if (!waiting.event) this.#waiting.delete(message.id);
        return waiting.settle(null, message.result);
    }
  }

  #lost() {
    this.#drop();
    const now = performance.now();
    const pause = pauseMs(this.#attempt++, Math.random());
    const sinceMs = this.status.state === "lost" ? this.status.sinceMs : now;
    this.#become({ state: "lost", sinceMs, retryAtMs: now + pause });
    this.#retry = setTimeout(() => this.connect(), pause);
  }

  #drop() {
    clearTimeout(this.#watching);
    const socket = this.#socket;
    this.#socket = null;
    // One that is not there yet is closed once it is: browsers complain of the other way as of an error.
    if (socket?.readyState === WebSocket.CONNECTING) socket.addEventListener("open", () => socket.close());
    else socket?.close();
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { settle } of waiting) settle(new Problem(UNREACHABLE));
  }

  /** One timer, set for when something could be amiss: an open page that nobody uses is to cost nothing. */
  #watch() {
    clearTimeout(this.#watching);
    const now = performance.now();
    const askedMs = this.#askedMs === null ? null : now - this.#askedMs;
    const { act, againMs } = watch({ silentMs: now - this.#heardMs, askedMs });
    if (act === "give up") return this.#lost();
    if (act === "ask") {
      this.#askedMs = now;
      this.#socket.send(JSON.stringify({ id: ++this.#last, type: "ping" }));
    }
    this.#watching = setTimeout(() => this.#watch(), againMs);
  }

  #become(status) {
    this.status = status;
    this.changed();
  }
}
