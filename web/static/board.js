// The board: what it does now and did before, what may be set, what is wrong with it, and what happened.

import { Chart } from "./charts.js";
import { clocksCard } from "./clocks.js";
import { doctorCard } from "./doctor.js";
import { stateWords, unitOf } from "./engine.js";
import { Columns } from "./figures.js";
import { newest } from "./newest.js";
import { actionButton, emptyNote, html, nothing, problemNote } from "./parts.js";
import { render, repeat } from "./vendor/lit.js";
import { bytes, celsius, count, hertz, memory, milliseconds, moment, NONE, percent, plural, short, tokensPerSecond } from "./words.js";

const SPANS = [
  { name: "5 minutes", resolution: "seconds", lengthS: 300 },
  { name: "15 minutes", resolution: "seconds", lengthS: 900 },
  { name: "24 hours", resolution: "minutes", lengthS: 86_400 },
];

const POWERS_OF_TWO = Array.from({ length: 24 }, (_, power) => 2 ** (20 + power)); // a MiB and upwards

export function open(container, appliance) {
  return new BoardView(container, appliance);
}

class BoardView {
  showsFigures = true;
  #span = SPANS[0];
  #columns = new Columns(900);
  #charts = null;
  #history = [];
  #machine = null;
  #unread = new Map(); // by command: what came of reading what is shown
  #problem = null; // what came of the buttons: it stays until the next one, whatever is read meanwhile
  #selftest = null;
  #logs = null;
  #inFront = false;
  #askingFigures = newest();
  #askingHistory = newest();

  constructor(container, appliance) {
    Object.assign(this, { container, appliance });
    this.clocks = clocksCard(appliance, () => this.draw());
    this.doctor = doctorCard(appliance, () => this.draw());
    appliance.listen(({ topic, event }) => this.#happened(topic, event));
  }

  enter() {
    this.#inFront = true;
  }

  leave() {
    this.#inFront = false;
  }

  #happened(topic, event) {
    if (!this.#inFront) return;
    if (topic === "stats" && this.#span.resolution === "seconds") this.#columns.add(event.time_s, event.figures);
    if (topic === "engine") this.#loadHistory();
  }

  /** Everything that is asked for once and then kept up to date. */
  load() {
    this.#loadFigures();
    this.#loadHistory();
    this.#loadMachine();
    this.clocks.load();
    this.doctor.load();
  }

  async #loadFigures() {
    const { resolution, lengthS } = this.#span;
    const isNewest = this.#askingFigures();
    await this.#read("stats.history", async () => {
      const { columns } = await this.appliance.call("stats.history", { resolution, last_s: lengthS });
      if (!isNewest()) return;
      this.#columns = new Columns(lengthS);
      this.#columns.replace(columns);
    });
  }

  async #loadHistory() {
    const isNewest = this.#askingHistory();
    await this.#read("engine.history", async () => {
      const { events } = await this.appliance.call("engine.history");
      if (isNewest()) this.#history = events.toReversed();
    });
  }

  async #loadMachine() {
    await this.#read("board.get", async () => (this.#machine = await this.appliance.call("board.get")));
  }

  async #read(what, read) {
    try {
      await read();
      this.#unread.delete(what);
    } catch (problem) {
      if (problem.code === "unreachable") return; // the page says so as a whole
      this.#unread.set(what, problem);
    }
    this.draw();
  }

  draw() {
    const { engine, stats, fresh } = this.appliance;
    render(html`
      <div class="head"><h1>Board</h1>${this.#spanChoice()}</div>
      <dl class=${fresh ? "hero" : "hero stale"}>${this.#hero(engine, stats?.figures).map(([name, value, unit]) => html`<div><dt>${name} <small>${unit}</small></dt><dd>${value}</dd></div>`)}</dl>
      ${problemNote(this.#problem)}
      ${[...this.#unread.values()].map((problem) => problemNote(problem))}
      <div class="charts">${this.#chartKeys().map((key) => html`<figure class="chart card" id=${`chart-${key}`}></figure>`)}</div>
      ${this.#engineCard(engine)}
      ${this.#machineCard()}
      ${this.clocks.draw()}
      ${this.doctor.draw()}
      ${this.#selftestCard()}
      ${this.#historyCard()}
      ${this.#logsCard()}`, this.container);
    this.#drawCharts();
  }

  #spanChoice() {
    return html`<div class="choice" role="group" aria-label="Time shown">${SPANS.map((span) => html`<button type="button" aria-pressed=${span === this.#span} @click=${() => {
      this.#span = span;
      this.#loadFigures();
      this.draw();
    }}>${span.name}</button>`)}</div>`;
  }

  #hero(engine, figures) {
    const unit = unitOf(figures);
    return [
      [`${unit.name} load`, unit.load === null ? NONE : count(unit.load), "%"],
      [`${unit.name} temperature`, unit.celsius === null || unit.celsius === undefined ? NONE : count(unit.celsius), "°C"],
      ["Speed", short(engine?.tokens_per_second), "tokens/s"],
      ["Waiting", count(figures?.["queue.depth"] ?? engine?.queue_depth), "requests"],
    ];
  }

  // Charts

  #chartKeys() {
    return Object.keys(this.#definitions());
  }

  #definitions() {
    const columns = this.#columns;
    const all = (key, label) => columns.parts(key).map((part) => ({ label: label(part), values: columns.values(`${key}.${part}`) }));
    const one = (key, label) => ({ label, values: columns.values(key) });
    const cluster = (part) => this.appliance.stats?.clusters?.[part] ?? `CPU ${Number(part) + 1}`;
    return {
      npu: { title: "NPU load", format: percent, range: [0, 100], empty: "This machine does not tell an NPU’s load.", series: all("npu.load_percent", (core) => `Core ${core}`) },
      cpu: { title: "CPU load", format: percent, range: [0, 100], empty: "No figures yet.", series: all("cpu.cluster_load_percent", cluster) },
      speed: { title: "Tokens a second", format: short, empty: "Nothing has been generated in this time.", series: [one("engine.tokens_per_second", "Tokens/s")] },
      heat: { title: "Temperature", format: celsius, empty: "This machine does not tell its temperatures.", series: [one("npu.temp_celsius", "NPU"), one("cpu.temp_celsius", "CPU"), one("gpu.temp_celsius", "GPU"), one("soc.hottest_celsius", "Hottest")] },
      clocks: { title: "Clocks", format: hertz, empty: "This machine does not tell its frequencies.", series: [one("npu.freq_hz", "NPU"), one("ddr.freq_hz", "DDR"), ...all("cpu.cluster_freq_hz", cluster), one("gpu.freq_hz", "GPU")] },
      memory: { title: "Memory", format: memory, steps: POWERS_OF_TWO, empty: "No figures yet.", series: [one("ram.used_bytes", "In use"), one("worker.rss_bytes", "Model"), one("daemon.rss_bytes", "Rockfill"), one("swap.used_bytes", "Swap")] },
      queue: { title: "Requests waiting", format: count, steps: [1, 2, 5, 10, 20, 50], empty: "No figures yet.", series: [one("queue.depth", "Waiting")] },
      first: { title: "Time to the first token", format: (seconds) => milliseconds(seconds === null ? null : seconds * 1000), empty: "Nothing has been generated in this time.", series: [one("engine.first_token_s", "First token")] },
    };
  }

  #drawCharts() {
    const definitions = this.#definitions();
    this.#charts ??= new Map();
    const to = this.#columns.times.at(-1) ?? Date.now() / 1000;
    for (const [key, definition] of Object.entries(definitions)) {
      let chart = this.#charts.get(key);
      if (!chart) this.#charts.set(key, (chart = new Chart(this.container.querySelector(`#chart-${key}`), definition)));
      chart.draw(this.#columns.times, definition.series, to - this.#span.lengthS, to);
    }
  }

  // The engine

  #engineCard(engine) {
    if (!engine) return nothing;
    const failed = (problem) => {
      this.#problem = problem;
      this.draw();
    };
    const command = (label, type, options = {}) => actionButton(label, async () => {
      this.#problem = null;
      await this.appliance.call(type, {}, { timeoutMs: 600_000 });
      this.draw();
    }, { failed, ...options });
    const loaded = ["ready", "busy"].includes(engine.state);
    return html`<section class="card" aria-label="Engine">
      <div class="head"><h2>Engine</h2><p>${stateWords(engine)}</p></div>
      ${problemNote(engine.problem)}
      <dl class="facts">
        <div><dt>Model</dt><dd>${engine.model?.name ?? NONE}</dd></div>
        <div><dt>Runs on</dt><dd>${engine.runtime ?? NONE}</dd></div>
        <div><dt>Context</dt><dd>${engine.context_tokens ? plural(engine.context_tokens, "token") : NONE}</dd></div>
        <div><dt>Speed lately</dt><dd>${tokensPerSecond(engine.tokens_per_second)}</dd></div>
      </dl>
      <p class="actions">
        ${engine.paused
          ? command("Resume", "engine.resume", { kind: "primary" })
          : command("Pause", "engine.pause", { title: "Refuses completions and frees the memory, for something else to run" })}
        ${command("Restart", "engine.restart")}
        ${loaded ? command("Unload", "engine.unload") : command("Load", "engine.load", { disabled: engine.paused })}
        ${engine.pinned ? command("Let it be unloaded", "engine.unpin") : command("Keep it loaded", "engine.pin")}
      </p>
    </section>`;
  }

  #machineCard() {
    const machine = this.#machine;
    if (!machine) return nothing;
    const { npu, release } = machine;
    const driver = npu.driver ? `${npu.driver} ${npu.version ?? ""}` : npu.in_device_tree ? "no driver" : "none";
    const facts = [
      ["Machine", machine.model ?? machine.architecture],
      ["SoC", machine.soc],
      ["NPU", driver],
      ["Kernel", machine.kernel],
      ["System", release.name],
      ["Memory", machine.ram_bytes === null ? null : memory(machine.ram_bytes)],
      ["Cores", machine.clusters.map(({ name, cores }) => `${cores.length} ${name}`).join(", ")],
      ["Disks", machine.disks.map(({ kind, size_bytes: size }) => `${kind} ${bytes(size)}`).join(", ")],
    ];
    return html`<section class="card" aria-label="Machine"><h2>Machine</h2>
      <dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value || NONE}</dd></div>`)}</dl></section>`;
  }

  #selftestCard() {
    const run = async () => {
      this.#selftest = null;
      this.#selftest = await this.appliance.call("selftest.run", {}, { timeoutMs: 900_000 });
      this.draw();
    };
    const failed = (problem) => {
      this.#selftest = { problem };
      this.draw();
    };
    const result = this.#selftest;
    return html`<section class="card" aria-label="Selftest">
      <div class="head"><h2>Selftest</h2>${actionButton("Run", run, { failed, kind: "small" })}</div>
      <p class="quiet">Finds out what the model and its runtime really do on this machine. Takes about a minute on a board; other requests wait.</p>
      ${result?.problem ? problemNote(result.problem) : nothing}
      ${result?.report ? html`<pre class="report" tabindex="0" aria-label="Selftest report">${[result.report].flat().join("\n")}</pre>` : nothing}
    </section>`;
  }

  #historyCard() {
    return html`<section class="card" aria-label="What happened">
      <h2>What happened</h2>
      ${this.#history.length
        ? html`<ol class="events">${repeat(this.#history, ({ time_s: at, state }) => `${at} ${state}`, (event) => html`<li>
            <time>${moment(event.time_s)}</time>
            <div><strong>${stateWords({ state: event.state, next_retry_in_s: null })}</strong> ${event.model ?? ""}
              ${event.message ? html`<p>${event.message} <code>${event.code}</code></p>` : nothing}
              ${event.last_lines?.length ? html`<details><summary>${plural(event.last_lines.length, "last line")}</summary><pre tabindex="0">${event.last_lines.join("\n")}</pre></details>` : nothing}
            </div></li>`)}</ol>`
        : emptyNote("Nothing has happened yet.", "Loads, failures and restarts of the engine are kept here.")}
    </section>`;
  }

  #logsCard() {
    const load = async () => {
      this.#problem = null;
      this.#logs = (await this.appliance.call("engine.logs", { lines: 200 })).lines;
      this.draw();
    };
    const failed = (problem) => {
      this.#problem = problem;
      this.draw();
    };
    return html`<section class="card" aria-label="Log of the engine">
      <div class="head"><h2>Log of the engine</h2>${actionButton(this.#logs ? "Read again" : "Read", load, { failed, kind: "small" })}</div>
      ${this.#logs === null
        ? html`<p class="quiet">What the model’s process and its native library printed last.</p>`
        : this.#logs.length
          ? html`<pre class="report" tabindex="0" aria-label="Log lines">${this.#logs.join("\n")}</pre>`
          : emptyNote("It has printed nothing yet.")}
    </section>`;
  }
}
