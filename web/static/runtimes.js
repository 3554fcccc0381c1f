// Rockchip's runtimes for the NPU: which are here, which is used and why, and which may be fetched.

import { hubLogin } from "./fetching.js";
import { newest } from "./newest.js";
import { actionButton, emptyNote, html, nothing, openDialog, problemNote } from "./parts.js";
import { render, repeat } from "./vendor/lit.js";

const ORIGINS = { configured: "named in the configuration", installed: "installed by Rockfill", system: "found on the system" };

export function runtimesCard(appliance, changed) {
  let state = null;
  let hub = null;
  let unread = null; // what came of reading what is here
  let problem = null; // what came of the buttons: it stays until the next one, whatever is read meanwhile
  let account = null;

  const asking = newest();
  const load = async () => {
    const isNewest = asking();
    try {
      const answers = await Promise.all([appliance.call("runtimes.list"), appliance.call("hub.get")]);
      if (!isNewest()) return;
      [state, hub] = answers;
      unread = null;
    } catch (failure) {
      if (isNewest() && failure.code !== "unreachable") unread = failure;
    }
    changed();
  };
  const failed = (failure) => {
    problem = failure;
    changed();
  };
  const button = (label, run, options = {}) => actionButton(label, async () => {
    problem = null;
    await run();
    await load();
  }, { failed, kind: "small", ...options });
  const action = (label, type, parameters, options) => button(label, () => appliance.call(type, parameters, { timeoutMs: 120_000 }), options);

  const row = (runtime) => {
    const { version, chosen = state.chosen?.version === runtime.version } = runtime;
    return html`<li>
      <div class="what"><strong>${version ?? "unknown version"}</strong>
        ${chosen ? html`<span class="tag on">used</span>` : nothing} ${state.pinned === version && version ? html`<span class="tag">chosen by hand</span>` : nothing}
        <p class="quiet">${[ORIGINS[runtime.origin] ?? runtime.origin, runtime.official ? "Rockchip’s release, verified" : "not a known release", runtime.path].join(" · ")}</p></div>
      <div class="actions">
        ${version && state.pinned !== version ? action("Use always", "runtimes.use", { version }) : nothing}
        ${runtime.origin === "installed" ? button("Remove…", async () => {
          if (await removalConfirmed(version)) await appliance.call("runtimes.remove", { version });
        }) : nothing}
      </div>
      ${problemNote(runtime.problem)}
    </li>`;
  };

  return {
    load,
    draw() {
      if (!state) return problemNote(unread);
      const here = new Set(state.runtimes.map(({ version }) => version));
      const more = state.available.filter((version) => !here.has(version)).toReversed();
      return html`<section class="card" aria-label="Runtimes">
        <div class="head"><h2>Rockchip’s runtime</h2>${state.pinned ? action("Choose by itself again", "runtimes.use", { version: "auto" }) : nothing}</div>
        ${state.chosen ? html`<p>For the chosen model: <strong>${state.chosen.version}</strong>, ${state.chosen.reason}${state.chosen.installed ? "" : "; it is not here yet"}.</p>` : nothing}
        ${state.runtimes.length
          ? html`<ul class="rows">${repeat(state.runtimes, ({ path }) => path, row)}</ul>`
          : emptyNote("No runtime is here.", "The NPU needs one; choosing a model for the NPU fetches the one that suits it. Without an NPU none is needed.")}
        ${problemNote(problem)}
        ${problemNote(unread)}
        ${more.length ? html`<form class="row" @submit=${(event) => event.preventDefault()}>
          <label for="runtime-version">Fetch a release of Rockchip’s</label>
          <select id="runtime-version" name="version">${more.map((version) => html`<option>${version}</option>`)}</select>
          ${button("Fetch", () => appliance.call("runtimes.install", { version: document.getElementById("runtime-version").value }, { timeoutMs: 120_000 }), { kind: "" })}
        </form>` : nothing}
        ${hub ? html`<p class="row"><span class="quiet">Models come from ${hub.endpoint}${hub.has_token ? ", with your token" : ", without a token"}${account ? `, signed in as ${account}` : ""}.</span>
          ${hub.has_token
            ? action("Forget the token", "hub.logout", {}, { kind: "small plain" })
            : button("Give it a token", async () => {
                const given = await hubLogin(appliance);
                if (typeof given === "string") account = given;
              }, { kind: "small plain" })}</p>` : nothing}
      </section>`;
    },
  };
}

async function removalConfirmed(version) {
  const answer = await openDialog(render, `Remove ${version}`, (close) => html`
    <h2>Remove runtime ${version}?</h2>
    <p>Models that need it will have it fetched again.</p>
    <p class="actions"><button type="button" class="accent" @click=${() => close("remove")}>Remove it</button>
      <button type="button" autofocus @click=${() => close()}>Keep it</button></p>`);
  return answer === "remove";
}
