// From nothing to the first completion by a real model: what is done, what is next, and what runs meanwhile.

import { fetchModel } from "./fetching.js";
import { guide } from "./guide.js";
import { actionButton, html, nothing, problemNote } from "./parts.js";
import { bytes, duration } from "./words.js";

const PUT_OFF_KEY = "rockfill.first-steps";
const PATIENCE_MS = 1000; // then what is there is shown, even if it has to move later

export class FirstSteps {
  #known = { board: undefined, runtimes: undefined, catalogue: [] };
  #asked = false;
  #answered = false;
  #problem = null;
  #guiding = false; // somebody is on the way: the last step is shown, too
  #completed = false;

  constructor(appliance, changed) {
    Object.assign(this, { appliance, changed });
    setTimeout(() => {
      this.#answered = true;
      changed();
    }, PATIENCE_MS);
  }

  /** Whether it is decided what stands here, so that nothing below has to move any more. */
  get settled() {
    return localStorage.getItem(PUT_OFF_KEY) !== null || this.#answered || (this.appliance.engine !== null && !this.#due);
  }

  get #due() {
    const { engine } = this.appliance;
    const waiting = engine && (!engine.model || engine.model.demonstration || engine.instead_of);
    return !localStorage.getItem(PUT_OFF_KEY) && engine && !this.#completed && (waiting || this.#guiding);
  }

  /** A real model has completed something: that was the last step. */
  completed() {
    if (this.appliance.engine?.model && !this.appliance.engine.model.demonstration) this.#completed = true;
  }

  draw() {
    const { engine, downloads } = this.appliance;
    if (!this.#due) return nothing;
    this.#guiding = true;
    if (!this.#asked) this.#ask();
    if (!this.#answered) return nothing;
    const { title, steps, instead } = guide({ engine, downloads, ...this.#known });
    return html`<section class="card guide" aria-label="First steps">
      <div class="head"><h2>${title}</h2><button type="button" class="plain" @click=${() => this.#putOff()}>Not now</button></div>
      ${instead ? html`<p>${instead}</p>` : nothing}
      ${problemNote(engine.instead_of?.problem)}
      <ol class="steps">${steps.map((step) => this.#step(step))}</ol>
      ${problemNote(this.#problem)}
    </section>`;
  }

  #step({ name, text, state, suggestion, job }) {
    const failed = (problem) => {
      this.#problem = problem;
      this.changed();
    };
    const get = async () => {
      this.#problem = null;
      await fetchModel(this.appliance, "models.use", { model: suggestion.name });
      this.changed();
    };
    return html`<li class=${state} aria-current=${state === "now" ? "step" : nothing}>
      <strong>${name}</strong><span class="spoken">${{ done: "done", now: "next", later: "later" }[state]}</span>
      <p>${text}</p>
      ${suggestion ? html`<p class="actions">${actionButton(`Fetch and use ${suggestion.title}`, get, { failed, kind: "accent" })} <a href="#models">All models and variants</a></p>` : nothing}
      ${job ? html`<progress max="1" .value=${job.total_bytes ? job.done_bytes / job.total_bytes : 0} aria-label=${`${job.name}: how much of it is here`}></progress>
        <p class="quiet">${bytes(job.done_bytes)} of ${bytes(job.total_bytes)}${job.bytes_per_second ? ` · ${bytes(job.bytes_per_second)}/s` : ""}${job.seconds_left !== null ? ` · ${duration(job.seconds_left)} left` : ""} · <a href="#models">Cancel, and more</a></p>` : nothing}
    </li>`;
  }

  async #ask() {
    this.#asked = true;
    const asked = { board: "board.get", runtimes: "runtimes.list", catalogue: "models.catalogue" };
    for (const [name, type] of Object.entries(asked)) {
      try {
        const answer = await this.appliance.call(type);
        this.#known[name] = name === "catalogue" ? answer.models : answer;
      } catch (problem) {
        if (problem.code === "unreachable") this.#asked = false;
        else if (problem.code !== "unauthorized") this.#problem = problem;
      }
    }
    this.#answered = true;
    this.changed();
  }

  #putOff() {
    localStorage.setItem(PUT_OFF_KEY, "put off");
    this.changed();
  }
}
