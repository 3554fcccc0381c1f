// The page: signing in, the connection, the rail with its figures, and which view is shown.

import { appliance } from "./appliance.js";
import { html, nothing, problemNote } from "./parts.js";
import { login, logout, tokenFromAddress } from "./session.js";
import { render } from "./vendor/lit.js";
import { stateWords, unitOf } from "./engine.js";
import { count, NONE, short, time } from "./words.js";

const at = (id) => document.getElementById(id);
const VIEWS = {
  complete: { title: "Complete", load: () => import("./complete.js") },
  models: { title: "Models", load: () => import("./models.js") },
  board: { title: "Board", load: () => import("./board.js") },
  connect: { title: "Connect", load: () => import("./connect.js") },
};
// How often figures are wanted: by a view that shows them, and by the rail alone.
const [OFTEN_S, SELDOM_S] = [1, 5];
let shown = null; // { name, view }
let signInProblem = null;
let notLoaded = null; // why a view could not be shown

// Which view

const viewInAddress = () => (Object.hasOwn(VIEWS, location.hash.slice(1)) ? location.hash.slice(1) : "complete");

async function route() {
  if (location.hash.includes("token=")) return start();
  const name = viewInAddress();
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === `#${name}`;
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `${VIEWS[name].title} · Rockfill`;
  let view;
  try {
    view = await opened(name);
  } catch (error) {
    // After an upgrade, say, the files of the release that this page is of are gone.
    notLoaded = error;
    return draw();
  }
  if (viewInAddress() !== name) return; // somebody went on meanwhile
  notLoaded = null;
  if (shown?.name !== name) shown?.view.leave?.();
  shown = { name, view };
  draw();
  appliance.watchFigures(view.showsFigures ? OFTEN_S : SELDOM_S);
  view.enter?.();
  if (appliance.status.state === "open") view.load?.();
}

/** The view `name`, made when it is first wanted: once, however often it is asked for before it is there. */
async function opened(name) {
  const entry = VIEWS[name];
  entry.opening ??= entry.load().then((module) => module.open(at(name), appliance));
  try {
    return await entry.opening;
  } catch (error) {
    entry.opening = null; // the next time may find it
    throw error;
  }
}

// What is drawn, at most once a frame. A browser that is busy may not come to a frame for long, and that the appliance
// is gone has to be said all the same.

const FRAME_MS = 500;
let asked = null; // "figures" or "all"
let frame, late;
function changed(what) {
  if (!asked) {
    frame = requestAnimationFrame(drawWhatChanged);
    late = setTimeout(drawWhatChanged, FRAME_MS);
  }
  if (asked !== "all") asked = what;
}

/** New figures come all the time; only the rail, and a view that shows them, is drawn for that. */
function drawWhatChanged() {
  cancelAnimationFrame(frame);
  clearTimeout(late);
  const what = asked;
  asked = null;
  if (what === "all") draw();
  else drawFigures();
}

function drawFigures() {
  render(readouts(), at("readouts"));
  if (appliance.status.state !== "refused" && shown?.view.showsFigures) shown.view.draw();
}

function draw() {
  const { status, engine } = appliance;
  const signedIn = status.state !== "refused";
  document.body.classList.toggle("gone", status.state === "lost");
  at("login").hidden = signedIn;
  at("logout").hidden = !signedIn;
  at("logout").textContent = isGuest() ? "Sign in" : "Sign out";
  render(signInProblem ? problemNote(signInProblem) : nothing, at("login-problem"));
  for (const name of Object.keys(VIEWS)) at(name).hidden = !signedIn || shown?.name !== name;
  render(notices(), at("notices"));
  drawState(engine);
  render(readouts(), at("readouts"));
  if (signedIn) shown?.view.draw?.();
}

function drawState(engine) {
  const { status } = appliance;
  const word = status.state === "lost" ? "No answer" : status.state === "refused" ? "Not signed in" : engine ? stateWords(engine) : "Connecting…";
  const state = status.state === "open" && engine ? (engine.paused ? "paused" : engine.state) : "unknown";
  const model = status.state === "refused" ? null : engine?.model;
  at("state").dataset.state = state;
  render(html`<span class="word">${word}</span>${model ? html`<span class="model" title=${model.name}>${model.name}</span>` : nothing}`, at("state"));
}

function notices() {
  const { status } = appliance;
  if (status.state === "lost") {
    return html`<div class="notice" role="alert">
      <p><strong>The appliance does not answer</strong> since ${time(status.since)}. What you see is from before. This page goes
        on by itself once it is back, and your text stays here.</p>
      <p class="actions"><button type="button" @click=${() => appliance.retryNow()}>Try now</button></p>
    </div>`;
  }
  const anew = html`<p class="actions"><button type="button" @click=${() => location.reload()}>Load the page anew</button></p>`;
  if (notLoaded) return html`<div class="notice" role="alert"><p><strong>This part of the page could not be loaded.</strong> ${notLoaded.message}</p>${anew}</div>`;
  if (status.state !== "open") return nothing;
  const old = status.version && status.version !== document.body.dataset.version;
  return old
    ? html`<div class="notice" role="status"><p><strong>Rockfill was updated to ${status.version}.</strong> This page is of
        ${document.body.dataset.version}.</p>${anew}</div>`
    : nothing;
}

function readouts() {
  const { stats, engine, fresh } = appliance;
  const unit = unitOf(stats?.figures);
  const load = unit.load;
  const shownStats = [
    [`${unit.name} load`, load === null ? NONE : count(load), "%"],
    [`${unit.name} temperature`, unit.celsius === null ? NONE : count(unit.celsius), "°C"],
    ["Speed", short(engine?.tokens_per_second), "tok/s"],
  ];
  return html`<dl class=${fresh ? "figures" : "figures stale"}>${shownStats.map(
    ([name, value, sign]) => html`<div><dt>${name}</dt><dd>${value}<small>${value === NONE ? "" : sign}</small></dd></div>`,
  )}</dl>`;
}

// Signing in

/** Somebody who got in without a token, which the configuration allows this network. */
const isGuest = () => document.body.dataset.open === "yes" && appliance.scopes !== null && !appliance.scopes.includes("control");

async function signIn(token) {
  try {
    await login(token);
  } catch (problem) {
    signInProblem = problem;
    appliance.refuse();
    return;
  }
  signInProblem = null;
  at("login").reset();
  appliance.connect();
}

function start() {
  const token = tokenFromAddress();
  if (token === null) appliance.connect();
  else signIn(token);
  return route();
}

at("login").addEventListener("submit", (event) => {
  event.preventDefault();
  signIn(at("token").value.trim());
});
at("logout").addEventListener("click", async () => {
  signInProblem = null;
  if (isGuest()) return appliance.refuse(); // who wants to sign in
  try {
    await logout();
  } catch (problem) { // still signed in, and told so
    signInProblem = problem;
    return appliance.refuse();
  }
  location.reload(); // nothing that was shown stays for whoever comes next
});
addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which view, and nothing else
  at("main").focus();
});

appliance.listen(({ topic }) => {
  const asking = appliance.status.state === "refused" && at("login").hidden;
  changed(topic === "stats" ? "figures" : "all");
  if (topic === "link" && appliance.status.state === "open") shown?.view.load?.(); // what was missed, or never came
  if (asking) requestAnimationFrame(() => at("token").focus());
});
start();
