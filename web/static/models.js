// Models: what is here, what is on its way, what there is to be had and how it would run on this machine.

import { downloadsCard } from "./downloads.js";
import { newest } from "./newest.js";
import { actionButton, emptyNote, html, nothing, openDialog, problemNote } from "./parts.js";
import { runtimesCard } from "./runtimes.js";
import { scoreLines } from "./scores.js";
import { variantsCard } from "./variants.js";
import { render, repeat } from "./vendor/lit.js";
import { bytes } from "./words.js";

export const ENGINES = { rkllm: "NPU", llama: "CPU" };
const CAPABILITIES = { completion: "completes", generation: "generates", chat: "chats", instructions: "follows instructions" };
const LOAD_TIMEOUT_MS = 900_000;

export function open(container, appliance) {
  return new ModelsView(container, appliance);
}

class ModelsView {
  #models = null;
  #catalogue = [];
  #problem = null; // what came of reading the lists
  #rowProblems = new Map(); // by a model's name: what came of its buttons
  #said = "";
  #importable = { directory: "", found: [] };
  #importProblem = null;
  #inFront = false;
  #asking = newest();

  constructor(container, appliance) {
    Object.assign(this, { container, appliance });
    const changed = () => this.draw();
    this.downloads = downloadsCard(appliance, changed);
    this.variants = variantsCard(appliance, changed, () => this.downloads.show());
    this.runtimes = runtimesCard(appliance, changed);
    appliance.listen(({ topic }) => {
      if (this.#inFront && ["engine", "downloads"].includes(topic) && this.#listChanged()) this.load();
    });
  }

  enter() {
    this.#inFront = true;
  }

  leave() {
    this.#inFront = false;
  }

  /** Whether what is known of the appliance says that the list of models may be another one than shown. */
  #seen = "";
  #listChanged() {
    const { engine, downloads } = this.appliance;
    const now = JSON.stringify([engine?.model?.name, downloads.filter(({ state }) => state === "done").length]);
    const changed = now !== this.#seen;
    this.#seen = now;
    return changed;
  }

  async load() {
    const isNewest = this.#asking();
    try {
      const asked = ["models.list", "models.catalogue", "models.importable"].map((type) => this.appliance.call(type));
      const [{ models }, { models: catalogue }, importable] = await Promise.all(asked);
      if (!isNewest()) return;
      this.#models = models;
      this.#importable = importable;
      this.#catalogue = catalogue;
      this.#problem = null;
    } catch (problem) {
      if (isNewest() && problem.code !== "unreachable") this.#problem = problem;
    }
    this.draw();
    this.runtimes.load();
  }

  draw() {
    render(html`
      <div class="head"><h1>Models</h1></div>
      ${problemNote(this.#problem)}
      ${this.downloads.draw()}
      ${this.#here()}
      ${this.#suggestions()}
      ${this.variants.draw()}
      ${this.runtimes.draw()}
      ${this.#importing()}`, this.container);
  }

  // What is here

  #here() {
    const models = this.#models;
    if (!models) return nothing;
    const real = models.filter(({ demonstration }) => !demonstration);
    return html`<section class="card" aria-label="On this machine">
      <h2>On this machine</h2>
      <ul class="rows">${repeat(models, ({ name }) => name, (model) => this.#row(model))}</ul>
      ${real.length ? nothing : emptyNote("Only the demonstration is here.", "Choose a model below: one click fetches it, checks it and loads it.")}
      <p class="quiet said" role="status">${this.#said}</p>
    </section>`;
  }

  #row(model) {
    const { engine } = this.appliance;
    const running = engine?.model?.name === model.name;
    const failed = (problem) => {
      this.#rowProblems.set(model.name, problem);
      this.draw();
    };
    const action = (label, run, options = {}) => actionButton(label, async () => {
      this.#rowProblems.delete(model.name);
      this.#said = "";
      await run();
      await this.load();
    }, { failed, kind: "small", ...options });
    const call = (type, parameters = {}) => this.appliance.call(type, parameters, { timeoutMs: LOAD_TIMEOUT_MS });
    const facts = [ENGINES[model.engine] ?? model.engine, model.quantisation, model.size_bytes ? bytes(model.size_bytes) : null, model.licence, model.source?.repository];
    return html`<li>
      <div class="what">
        <strong>${model.name}</strong>
        ${model.chosen ? html`<span class="tag on">chosen</span>` : nothing}
        ${running && engine.pinned ? html`<span class="tag">kept loaded</span>` : nothing}
        ${model.demonstration ? html`<span class="tag">demonstration</span>` : nothing}
        <p class="quiet">${facts.filter(Boolean).join(" · ")}</p>
        ${scoreLines(model.evaluations).map((line) => html`<p class="quiet">${line}</p>`)}
      </div>
      <div class="actions">
        ${model.chosen ? nothing : action("Use", () => call("models.use", { model: model.name }), { kind: "small primary" })}
        ${running && ["ready", "busy"].includes(engine.state)
          ? html`${action("Unload", () => call("engine.unload"))}
              ${engine.pinned ? action("Let it be unloaded", () => call("engine.unpin")) : action("Keep it loaded", () => call("engine.pin"))}`
          : model.chosen ? action("Load", () => call("engine.load", { model: model.name })) : nothing}
        ${model.removable ? action("Verify", () => this.#verify(model)) : nothing}
        ${model.removable && !model.chosen ? action("Remove…", () => this.#remove(model)) : nothing}
      </div>
      ${problemNote(this.#rowProblems.get(model.name))}
    </li>`;
  }

  async #verify({ name }) {
    const { ok, wrong } = await this.appliance.call("models.verify", { model: name }, { timeoutMs: LOAD_TIMEOUT_MS });
    const said = Object.entries(wrong).map(([file, what]) => `${file} ${what}`).join("; ");
    this.#said = ok ? `Every file of ${name} is as it was fetched.` : `${name}: ${said}. Remove it and fetch it again.`;
  }

  async #remove({ name, size_bytes: size }) {
    const answer = await openDialog(render, `Remove ${name}`, (close) => html`
      <h2>Remove ${name}?</h2>
      <p>This frees ${bytes(size)}. To have it again it has to be fetched again.</p>
      <p class="actions"><button type="button" class="accent" @click=${() => close("remove")}>Remove it</button>
        <button type="button" autofocus @click=${() => close()}>Keep it</button></p>`);
    if (answer !== "remove") return;
    const { left } = await this.appliance.call("models.remove", { model: name });
    this.#said = left.length ? `${name} is removed. Not Rockfill’s, and left where they are: ${left.join(", ")}.` : `${name} is removed.`;
  }

  // What there is to be had

  #suggestions() {
    if (!this.#catalogue.length) return nothing;
    return html`<section class="card" aria-label="Choose a model">
      <h2>Choose a model</h2>
      <ul class="catalogue">${this.#catalogue.map((entry) => this.#entry(entry))}</ul>
      <form class="row" @submit=${(event) => { event.preventDefault(); this.variants.look(event.target.elements.repository.value.trim()); }}>
        <label for="repository">Or any repository of the Hub</label>
        <input id="repository" name="repository" required autocapitalize="none" spellcheck="false" placeholder="user/name" class="wide">
        <button>Look</button>
      </form>
    </section>`;
  }

  #entry(entry) {
    const can = [...new Set(entry.offers.flatMap(({ capabilities }) => capabilities))];
    return html`<li>
      <div class="what">
        <strong>${entry.title}</strong> ${entry.installed ? html`<span class="tag on">here</span>` : nothing}
        <p>${entry.note}</p>
        <p class="quiet">${can.map((name) => CAPABILITIES[name] ?? name).join(", ")} · ${entry.offers.map(({ engine }) => ENGINES[engine] ?? engine).join(", ")} · ${entry.licence.name}</p>
      </div>
      <div class="actions">
        <button type="button" class="small" aria-label=${`Variants of ${entry.title}`} @click=${() => this.variants.look(entry.name)}>Variants</button>
      </div>
    </li>`;
  }

  #importing() {
    const bring = async (event) => {
      event.preventDefault();
      const { path, tokenizer } = event.target.elements;
      const [button] = event.target.getElementsByTagName("button");
      button.disabled = true;
      try {
        const { model } = await this.appliance.call("models.import", { path: path.value.trim(), tokenizer: tokenizer.value.trim() || null }, { timeoutMs: LOAD_TIMEOUT_MS });
        this.#said = `${model} is here now.`;
        this.#importProblem = null;
        event.target.reset();
        await this.load();
      } catch (problem) {
        this.#importProblem = problem;
        this.draw();
      }
      button.disabled = false;
    };
    const choose = ({ target }, path) => {
      const form = target.closest("section").querySelector("form");
      form.elements.path.value = path;
      form.requestSubmit();
    };
    const row = ({ path, name, size_bytes: size }) => html`<li>
      <div class="what"><strong>${name}</strong> <span class="quiet">${bytes(size)}</span></div>
      <div class="actions"><button type="button" class="small" aria-label=${`Import ${name}`} @click=${(event) => choose(event, path)}>Import</button></div>
    </li>`;
    return html`<section class="card" aria-label="From a file">
      <h2>From a file</h2>
      <p class="quiet">A model that is on the appliance’s own disk already is copied to where it belongs. A <code>.rkllm</code> file needs the tokenizer of the
        original model beside it, or from a repository. Whatever is put into <code>${this.#importable.directory}</code> is listed here.</p>
      ${this.#importable.found.length ? html`<ul class="rows" aria-label="Found for import">${this.#importable.found.map(row)}</ul>` : nothing}
      <form class="fields" @submit=${bring}>
        <label>File or directory on the appliance <input name="path" required placeholder="/var/lib/rockfill/import/model.rkllm" autocapitalize="none" spellcheck="false"></label>
        <label>Tokenizer, if it is elsewhere <input name="tokenizer" placeholder="directory, or user/name on the Hub" autocapitalize="none" spellcheck="false"></label>
        <button>Import</button>
      </form>
      ${problemNote(this.#importProblem)}
    </section>`;
  }
}
