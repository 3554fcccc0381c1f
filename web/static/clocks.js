// The board's clocks: when they are raised, how they stand, what keeps them from it, and giving them back.

import { newest } from "./newest.js";
import { actionButton, html, nothing, problemNote } from "./parts.js";
import { live, repeat } from "./vendor/lit.js";
import { hertz, NONE } from "./words.js";

const POLICIES = {
  auto: ["While a model works", "Raised while a completion runs and shortly after, then given back."],
  loaded: ["While a model is loaded", "Raised as long as a model is in memory."],
  always: ["Always", "Raised as long as Rockfill runs."],
  off: ["Never", "Clocks are left as they are."],
};
const HIGHEST = "";

export function clocksCard(appliance, changed) {
  let state = null;
  let unread = null; // what came of reading how they stand
  let problem = null; // what came of changing that: it stays until the next change, whatever is read meanwhile
  let missing = false;
  let timer = 0;

  const asking = newest();
  const load = async () => {
    clearTimeout(timer);
    const isNewest = asking();
    try {
      const answer = await appliance.call("clocks.get");
      if (!isNewest()) return;
      state = answer;
      unread = null;
    } catch (failure) {
      if (!isNewest()) return;
      if (failure.code === "unknown_command") missing = true;
      else if (failure.code !== "unreachable") unread = failure;
    }
    changed();
  };

  /** Runs a command that changes them; its answer is how everything stood then. Read once more, since an older question may be answered later. */
  const change = async (type, parameters) => {
    problem = null;
    state = await appliance.call(type, parameters);
    changed();
    load();
  };
  /** `wish` changes the policy or what is fixed. */
  const set = (wish) => change("clocks.set", { policy: state.policy, fixed_mhz: state.fixed_mhz, ...wish }).catch(failed);
  const fix = (name, mhz) => {
    const others = Object.fromEntries(Object.entries(state.fixed_mhz).filter(([other]) => other !== name));
    return set({ fixed_mhz: mhz === HIGHEST ? others : { ...others, [name]: Number(mhz) } });
  };
  const failed = (failure) => {
    problem = failure;
    changed();
  };

  // What the engine does moves the clocks, a moment later.
  appliance.listen(({ topic }) => {
    if (topic !== "engine" || !state) return;
    clearTimeout(timer);
    timer = setTimeout(load, 500);
  });

  const row = (device) => {
    const held = Object.keys(device.held).length > 0;
    return html`<tr>
      <th scope="row">${device.name}</th>
      <td class="figure">${hertz(device.current_hz)}</td>
      <td>${device.governor ?? NONE} <span class="quiet">${hertz(device.min_hz)} to ${hertz(device.max_hz)}</span></td>
      <td>${held ? html`<span class="tag on">raised by Rockfill</span>` : html`<span class="quiet">as found</span>`}</td>
      <td>${device.frequencies_hz.length && device.not_writable.length === 0
        ? html`<select aria-label=${`${device.name}, when raised`} .value=${live(String(state.fixed_mhz[device.name] ?? HIGHEST))} @change=${({ target }) => fix(device.name, target.value)}>
            <option value=${HIGHEST}>its highest</option>
            ${device.frequencies_hz.map((hz) => html`<option value=${String(hz / 1e6)} ?selected=${state.fixed_mhz[device.name] === hz / 1e6}>${hertz(hz)}</option>`)}</select>`
        : nothing}</td>
    </tr>`;
  };

  return {
    load,
    draw() {
      if (missing || (!state && !unread)) return nothing;
      if (!state) return html`<section class="card" aria-label="Clocks"><h2>Clocks</h2>${problemNote(unread)}</section>`;
      return html`<section class="card" aria-label="Clocks">
        <div class="head"><h2>Clocks</h2><p role="status">${state.raised ? "Raised now" : "Not raised now"}${state.lowered_percent ? `, lowered by ${state.lowered_percent} % because it is hot` : ""}</p></div>
        ${state.devices.length ? html`
          <div class="row">
            <label for="clock-policy">Raise them</label>
            <select id="clock-policy" .value=${live(state.policy)} @change=${({ target }) => set({ policy: target.value })}>
              ${Object.entries(POLICIES).map(([value, [title]]) => html`<option value=${value} ?selected=${value === state.policy}>${title}</option>`)}</select>
            <span class="quiet">${POLICIES[state.policy]?.[1] ?? ""} At ${state.hot_celsius} °C they are lowered step by step.</span>
          </div>
          <div class="scrolls" tabindex="0" role="group" aria-label="Devices"><table class="plainly"><thead><tr><th scope="col">Device</th><th scope="col">Now</th><th scope="col">Governor and limits</th><th scope="col">State</th><th scope="col">When raised</th></tr></thead>
            <tbody>${repeat(state.devices, ({ name }) => name, row)}</tbody></table></div>
          <p class="actions">${actionButton("Give them back now", () => change("clocks.restore", {}), { failed, disabled: !state.raised, title: "Until the engine changes its state the next time" })}</p>` : nothing}
        ${state.problems.length ? html`<ul class="findings">${state.problems.map((found) => html`<li class="warning"><strong>${found.device}</strong> <span>${found.message} <span class="quiet">${found.advice}</span></span></li>`)}</ul>` : nothing}
        ${problemNote(problem)}
        ${problemNote(unread)}
      </section>`;
    },
  };
}
