// The page: signing in, the state of the engine, and what the editor has to tell.

import { command, login, logout } from "./api.js";
import { Editor } from "./editor.js";

const POLL_MS = 2000;
const POLL_HIDDEN_MS = 30_000;
const STATES = {
  stopped: "not loaded; the next completion loads it",
  starting: "starting",
  loading: "loading",
  ready: "ready",
  busy: "working",
  stopping: "stopping",
  failed: "failed",
  closed: "shut down",
};

const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const isGone = () => document.body.classList.contains("gone");
let engine = null;
let pollTimer = 0;

/** Writes only what changed, as live regions are read out at every write. */
function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function showProblem(element, problem) {
  element.hidden = !problem;
  const { message = "", advice = "", code = "" } = problem ?? {};
  if (element.textContent === [message, advice, code].join(" ")) return;
  const [what, where] = [document.createElement("strong"), document.createElement("code")];
  what.textContent = message;
  where.textContent = code;
  element.replaceChildren(what, ` ${advice} `, where);
}

// Signing in

const loginForm = at("login");
const loginProblem = loginForm.querySelector(".problem");

async function signIn(token) {
  clearTimeout(pollTimer);
  try {
    await login(token);
  } catch (problem) {
    if (problem.code !== "unreachable") return askForToken(problem);
    showGone(problem);
    pollTimer = setTimeout(signIn, POLL_MS, token);
    return;
  }
  loginForm.hidden = true;
  loginForm.reset();
  showProblem(loginProblem, null);
  await poll();
}

function askForToken(problem = null) {
  clearTimeout(pollTimer);
  showEngine(null);
  showGone(null);
  loginForm.hidden = false;
  showProblem(loginProblem, problem);
  at("token").focus();
}

/** The token in the page's address, which is taken out of there at once, so that nobody copies or photographs it. */
function tokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

function start() {
  const token = tokenFromAddress();
  if (token === null) poll();
  else signIn(token);
}

// The engine

async function poll() {
  clearTimeout(pollTimer);
  try {
    showEngine(await command("engine.get"));
    showGone(null);
  } catch (problem) {
    if (problem.code === "unauthorized") return askForToken();
    showGone(problem);
  }
  clearTimeout(pollTimer);
  pollTimer = setTimeout(poll, document.hidden ? POLL_HIDDEN_MS : POLL_MS);
}

function showGone(problem) {
  const gone = problem?.code === "unreachable";
  document.body.classList.toggle("gone", gone);
  at("gone").hidden = !problem;
  const then = gone ? "This page goes on by itself once it is back, and your text stays here." : problem?.code;
  write(at("gone"), problem ? `${problem.message} ${problem.advice} ${then}` : "");
  if (!problem) return;
  at("engine").dataset.state = "unknown";
  write(at("engine"), gone ? "no answer" : "state unknown");
}

function showEngine(value) {
  engine = value;
  const model = engine?.model;
  at("engine").dataset.state = engine?.state ?? "unknown";
  const parts = engine ? [model?.name ?? "no model", model?.demonstration && "demonstration", STATES[engine.state]] : [];
  write(at("engine"), engine ? parts.filter(Boolean).join(" · ") : "not signed in");
  at("engine").title = engine?.runtime ?? "";
  at("demonstration").hidden = !model?.demonstration;
  write(at("demonstration").firstChild, model?.name ?? "");
  showProblem(at("engine-problem"), engine?.problem);
  write(at("speed"), engine?.tokens_per_second ? `${number.format(engine.tokens_per_second)} tokens/s` : "–");
}

// The editor

const cage = at("cage");

function hint(text, spoken = "") {
  const [seen, heard] = at("hint").children;
  write(seen, text);
  write(heard, spoken);
}

/** A stone for each piece that came; those that are in the text are set. */
function layStones(text) {
  const stone = document.createElement("i");
  stone.style.width = `${0.7 + text.trim().length * 0.45}rem`;
  stone.dataset.end = text.length + Number(cage.lastChild?.dataset.end ?? 0);
  cage.append(stone);
}

function showReport({ timings, reused_tokens: reused, trimmed }) {
  const ms = timings.first_token_ms;
  write(at("first-token"), ms === null ? "–" : ms < 1000 ? `${number.format(ms)} ms` : `${number.format(ms / 1000)} s`);
  write(at("reused"), reused === null ? "–" : `${reused} of ${timings.prompt_tokens} tokens`);
  const cut = [
    trimmed.prefix_chars && `${trimmed.prefix_chars} characters before`,
    trimmed.suffix_chars && `${trimmed.suffix_chars} after`,
    trimmed.files && `${trimmed.files} files`,
  ];
  write(at("trimmed"), cut.filter(Boolean).join(", ") || "nothing");
}

const editor = new Editor({
  sheet: at("sheet"),
  area: at("text"),
  overlay: at("overlay"),
  mode: at("mode"),
  automatic: () => !isGone() && ["stopped", "ready", "busy"].includes(engine?.state),
  on: {
    begun() {
      cage.replaceChildren();
      showProblem(at("problem"), null);
      hint("Filling…");
    },
    grew: layStones,
    shown(rest, offer) {
      at("accept").disabled = !rest;
      const accepted = offer.text.length - rest.length;
      for (const stone of cage.children) stone.classList.toggle("set", stone.dataset.end <= accepted);
      if (!rest && !offer.streaming && offer.text) hint("");
    },
    ended(report, offer) {
      if (report) showReport(report);
      if (!offer.text) hint("Nothing to add here.");
      else if (report?.finish === "length") hint("Cut at the limit. Accept, or type on.", `Offered: ${offer.text}`);
      else hint("Accept, or type on.", `Offered: ${offer.text}`);
      poll();
    },
    async failed(problem) {
      if (problem.code === "unauthorized") return askForToken();
      if (problem.code === "unreachable") await poll();
      if (isGone()) return; // which the page says as a whole
      showProblem(at("problem"), problem);
    },
    dropped() {
      at("accept").disabled = true;
      cage.replaceChildren();
      hint("");
    },
  },
});

at("complete").addEventListener("click", () => editor.complete());
at("accept").addEventListener("click", () => editor.accept());
for (const id of ["complete", "accept"]) {
  // A press takes neither the cursor out of the text nor the keyboard off a phone's screen.
  at(id).addEventListener("mousedown", (event) => event.preventDefault());
}
at("logout").addEventListener("click", async () => {
  editor.refuse();
  await logout().catch(showGone);
  poll();
});
loginForm.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(at("token").value.trim());
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && loginForm.hidden) poll();
});
window.addEventListener("hashchange", () => location.hash && start());

const text = at("text");
if (text.value === text.defaultValue) {
  const missing = text.value.indexOf("\n\n\n"); // the line before is the one to fill
  text.setSelectionRange(missing, missing);
  text.focus({ preventScroll: true });
}
start();
