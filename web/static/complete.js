// The page to write code on: tabs, the editor with its ghost text, and how each completion went.

import { CodeEditor } from "./editor.js";
import { Completer } from "./completer.js";
import { canComplete } from "./engine.js";
import { copyButton, html, nothing, openDialog, problemNote } from "./parts.js";
import { Problem } from "./problem.js";
import { freeName, Keeper, readText, stored } from "./tabs.js";
import { live, ref, render, repeat } from "./vendor/lit.js";
import { count, milliseconds, NONE, plural, tokensPerSecond } from "./words.js";
import { FirstSteps } from "./first-steps.js";

const SETTINGS_KEY = "rockfill.completion";
const DEFAULTS = { mode: "line", maxTokens: 64, temperature: 0, automatic: true };
const TOUCH = matchMedia("(pointer: coarse)").matches; // then there are no keys to speak of
const LONGEST_SPOKEN = 400;

export function open(container, appliance) {
  const view = new CompleteView(container, appliance);
  view.draw();
  return view;
}

class CompleteView {
  #files;
  #active;
  #editor = null;
  #session = crypto.getRandomValues(new Uint32Array(2)).join("-");
  #settings = { ...DEFAULTS, ...readSettings() };
  #hint = { seen: "Put the cursor where something is missing.", spoken: "" };
  #offered = "";
  #problem = null;
  #fileProblem = "";
  #outcome = null;
  #asked = null; // what the last completion was asked with
  #running = false;
  #full = false;

  constructor(container, appliance) {
    this.container = container;
    this.firstSteps = new FirstSteps(appliance, () => this.draw());
    this.appliance = appliance;
    const { files, active } = stored();
    this.#files = files;
    this.#active = active;
    this.keeper = new Keeper(() => this.#kept(), (failed) => failed !== this.#full && ((this.#full = failed), this.draw()));
    this.completer = new Completer({
      start: (offer, told) => this.#start(offer, told),
      automatic: () => this.#settings.automatic && appliance.status.state === "open" && canComplete(appliance.engine) && !this.#problem?.lasting,
      on: {
        begun: () => this.#begun(),
        grew: (text) => this.#layStone(text),
        shown: (rest, offer) => this.#shown(rest, offer),
        ended: (done, offer) => this.#ended(done, offer),
        failed: (problem) => this.#failed(problem),
        dropped: (whole) => this.#dropped(whole),
      },
    });
  }

  enter() {
    this.#editor?.view.requestMeasure();
    if (matchMedia("(pointer: fine)").matches) this.#editor?.view.focus();
  }

  leave() {
    this.completer.refuse(this.#editor.view);
  }

  draw() {
    const offline = this.appliance.status.state !== "open";
    const { mode, maxTokens, temperature, automatic } = this.#settings;
    const honours = this.appliance.engine?.honours;
    const hot = honours?.includes("temperature") ?? true; // an engine that is not loaded does not say
    const guide = this.firstSteps.draw();
    this.container.classList.toggle("unsettled", !this.firstSteps.settled);
    render(html`
      <h1 class="spoken">Complete code</h1>
      ${guide}
      <div class="bench" @dragover=${(event) => event.preventDefault()} @drop=${(event) => this.#drop(event)}>
        <div class="tabs">
          <div class="tablist" role="tablist" aria-label="Files" @keydown=${(event) => this.#tabKey(event)}>
            ${repeat(this.#files, (file) => file, (file, at) => this.#tab(file, at))}
          </div>
          <button type="button" class="plain" title="New file" aria-label="New file" @click=${() => this.#add({ name: "untitled.py", text: "" })}>+</button>
          <label class="button plain">Open…<input type="file" class="spoken" multiple @change=${({ target }) => { this.#openFiles([...target.files]); target.value = ""; }}></label>
        </div>
        ${this.#fileProblem || this.#full
          ? html`<p class="notice" role="alert">${this.#fileProblem} ${this.#full ? "The browser has no room left to keep these files: a reload would lose the last changes." : ""}</p>`
          : nothing}
        <div class="sheet" id="sheet" role="tabpanel" aria-label=${this.#files[this.#active].name} ${ref((element) => element && this.#mount(element))}></div>
        <div class="cage" aria-hidden="true" ${ref((element) => (this.cage = element))}></div>
      </div>

      <div class="tools">
        <button type="button" class="primary" ?disabled=${offline} @mousedown=${keepFocus} @click=${() => this.#ask()}>Complete</button>
        <button type="button" class="accent" ?disabled=${!this.#offered} @mousedown=${keepFocus} @click=${() => this.completer.accept(this.#editor.view)}>Accept</button>
        <button type="button" ?disabled=${!this.#offered} @mousedown=${keepFocus} @click=${() => this.completer.acceptWord(this.#editor.view)}>Word</button>
        <p class="hint" role="status"><span>${this.#hint.seen}</span><span class="spoken">${this.#hint.spoken}</span></p>
        <div class="settings">
          <label>Fill <select .value=${live(mode)} @change=${({ target }) => this.#set("mode", target.value)}>
            <option value="line">the line</option>
            <option value="block">several lines</option>
          </select></label>
          <label>Tokens <input type="number" min="1" max="512" .value=${live(String(maxTokens))}
            @change=${({ target }) => this.#set("maxTokens", Math.min(512, Math.max(1, Math.round(Number(target.value)) || DEFAULTS.maxTokens)))}></label>
          <label title=${hot ? nothing : "This engine chooses its tokens in its own way."}>Temperature <input type="number" min="0" max="2" step="0.1" .value=${live(String(temperature))} ?disabled=${!hot}
            @change=${({ target }) => this.#set("temperature", Math.min(2, Math.max(0, Number(target.value) || 0)))}></label>
          <label class="check"><input type="checkbox" .checked=${live(automatic)} @change=${({ target }) => this.#set("automatic", target.checked)}> while typing</label>
        </div>
      </div>
      ${problemNote(this.#problem)}
      ${this.appliance.engine?.state === "failed" ? problemNote(this.appliance.engine.problem) : nothing}

      <dl class="outcome" aria-label="The last completion">
        ${this.#readings().map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
      </dl>
      <p class="actions">
        <button type="button" class="plain" ?disabled=${!this.#asked || offline} @click=${() => this.#showPrompt()}>Exact prompt</button>
        ${copyButton(() => this.#curl(), "Copy as curl")}
        <a href="#connect">Editor settings</a>
      </p>
      <ul class="keys" id="keys">
        <li><kbd>Ctrl</kbd> <kbd>Space</kbd> complete</li>
        <li><kbd>Tab</kbd> accept</li>
        <li><kbd>Ctrl</kbd> <kbd>→</kbd> a word</li>
        <li><kbd>Esc</kbd> refuse</li>
      </ul>`, this.container);
  }

  // Files

  #tab(file, at) {
    const active = at === this.#active;
    const rename = () => this.#rename(at);
    return html`<span class="tab" role="presentation">
      <button type="button" role="tab" aria-selected=${active} aria-controls="sheet" tabindex=${active ? 0 : -1}
        title=${active ? "Click again to rename" : nothing} @click=${() => (active ? rename() : this.#choose(at))}>${file.name}</button>
      ${this.#files.length > 1
        ? html`<button type="button" class="plain close" tabindex="-1" aria-label=${`Close ${file.name}`} @click=${() => this.#close(at)}>×</button>`
        : nothing}
    </span>`;
  }

  #tabKey(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) this.#choose((this.#active + step + this.#files.length) % this.#files.length);
    else if (event.key === "Delete" && this.#files.length > 1) this.#close(this.#active);
    else if (event.key === "F2") this.#rename(this.#active);
    else return;
    event.preventDefault();
    requestAnimationFrame(() => this.container.querySelector('[role="tab"][aria-selected="true"]')?.focus());
  }

  #mount(element) {
    if (this.#editor) return;
    const changed = (docChanged) => {
      this.keeper.changed();
      if (docChanged && this.#problem) this.#say({ problem: null });
    };
    this.#editor = new CodeEditor(element, this.completer.extension, changed);
    for (const file of this.#files) file.state = this.#editor.state(file.text, file.cursor);
    this.#display();
  }

  #display() {
    const { state, name } = this.#files[this.#active];
    this.#editor.show(state, name).catch((error) => console.error(error));
    this.#outcome = null;
  }

  #choose(at) {
    if (at === this.#active) return;
    this.#leaveFile();
    this.#active = at;
    this.#display();
    this.keeper.changed();
    this.draw();
  }

  /** The editor's state of the file in front goes back to its tab. */
  #leaveFile() {
    this.completer.refuse(this.#editor.view);
    this.#files[this.#active].state = this.#editor.view.state;
  }

  #add({ name, text }) {
    this.#leaveFile();
    const file = { name: freeName(name, this.#files.map((other) => other.name)), state: this.#editor.state(text) };
    this.#files = [...this.#files, file];
    this.#active = this.#files.length - 1;
    this.#display();
    this.keeper.changed();
    this.draw();
    this.#editor.view.focus();
  }

  async #close(at) {
    const { name } = this.#files[at];
    const text = (at === this.#active ? this.#editor.view.state : this.#files[at].state).doc;
    if (text.toString().trim()) {
      const answer = await openDialog(render, `Close ${name}`, (close) => html`
        <h2>Close ${name}?</h2>
        <p>Its text is kept in this browser only, and would be gone.</p>
        <p class="actions"><button type="button" class="accent" @click=${() => close("close")}>Close it</button>
        <button type="button" autofocus @click=${() => close()}>Keep it</button></p>`);
      if (answer !== "close") return;
    }
    this.#leaveFile();
    this.#files = this.#files.filter((_, other) => other !== at);
    this.#active = Math.min(this.#active > at ? this.#active - 1 : this.#active, this.#files.length - 1);
    this.#display();
    this.keeper.changed();
    this.draw();
  }

  async #rename(at) {
    const { name } = this.#files[at];
    const answer = await openDialog(render, "Rename the file", (close) => html`
      <form method="dialog" @submit=${(event) => { event.preventDefault(); close(event.target.elements.name.value.trim()); }}>
        <label>Name of the file, by whose ending its language is known
          <input name="name" .value=${name} required autocapitalize="none" spellcheck="false" autofocus></label>
        <p class="actions"><button class="primary">Rename</button><button type="button" @click=${() => close()}>Leave it</button></p>
      </form>`);
    if (!answer || answer === name) return;
    const others = this.#files.filter((_, other) => other !== at).map((other) => other.name);
    this.#leaveFile();
    this.#files[at].name = freeName(answer, others);
    if (at === this.#active) this.#display();
    this.keeper.changed();
    this.draw();
  }

  #drop(event) {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    this.#openFiles([...event.dataTransfer.files]);
  }

  async #openFiles(files) {
    const wrong = [];
    for (const file of files) {
      try {
        this.#add({ name: file.name, text: await readText(file) });
      } catch (error) {
        wrong.push(error.message);
      }
    }
    this.#fileProblem = wrong.join(" ");
    this.draw();
  }

  #kept() {
    const files = this.#files.map((file, at) => {
      const { doc, selection } = (at === this.#active ? this.#editor.view.state : file.state);
      return { name: file.name, text: doc.toString(), cursor: selection.main.head };
    });
    return { files, active: this.#active };
  }

  // Completions

  #ask() {
    this.completer.complete(this.#editor.view);
    this.#editor.view.focus();
  }

  /** What goes to the appliance for a place in the text. */
  #request(offer) {
    const { mode, maxTokens, temperature } = this.#settings;
    const files = this.#kept().files.filter((_, at) => at !== this.#active).filter(({ text }) => text.trim());
    return {
      prefix: offer.prefix,
      suffix: offer.suffix,
      files: files.map(({ name, text }) => ({ path: name, text })),
      max_tokens: maxTokens,
      mode,
      ...(temperature ? { temperature } : {}),
    };
  }

  #start(offer, told) {
    this.#asked = this.#request(offer);
    const { id, result } = this.appliance.stream("complete.start", { ...this.#asked, session: this.#session }, (event) => {
      if (event.type === "complete.delta") return told({ delta: event.text.replaceAll("\r", "") });
      this.appliance.forget(id);
      if (event.type === "complete.done") told({ done: event });
      if (event.type === "complete.failed") told({ problem: new Problem(event.error) });
    });
    let over = false;
    result.catch((problem) => {
      over = true;
      told({ problem });
    });
    return {
      cancel: () => {
        this.appliance.forget(id);
        if (!over) this.appliance.call("complete.cancel", { completion: id }).catch(() => {}); // it may be over by now
      },
    };
  }

  #begun() {
    this.cage.replaceChildren();
    this.#running = true;
    this.#say({ hint: "Filling…", problem: null });
  }

  /** A stone for each piece that came; those that are in the text are set. */
  #layStone(text) {
    const stone = document.createElement("i");
    stone.style.width = `${0.7 + text.trim().length * 0.45}rem`;
    stone.dataset.end = text.length + Number(this.cage.lastChild?.dataset.end ?? 0);
    this.cage.append(stone);
  }

  #shown(rest, offer) {
    const accepted = offer.text.length - rest.length;
    for (const stone of this.cage.children) stone.classList.toggle("set", Number(stone.dataset.end) <= accepted);
    if (Boolean(rest) !== Boolean(this.#offered)) {
      this.#offered = rest;
      this.#say({});
    }
    this.#offered = rest;
  }

  #ended(done, offer) {
    this.#running = false;
    this.#outcome = done;
    this.firstSteps.completed();
    const nothingCame = !offer.text.trim();
    const long = offer.text.length > LONGEST_SPOKEN ? `${offer.text.slice(0, LONGEST_SPOKEN)} …` : offer.text;
    this.#say(nothingCame
      ? { hint: "The model has nothing to put here." }
      : { hint: TOUCH ? "Accept takes it, Word its next word." : "Tab takes it, Esc refuses.", spoken: `Offered: ${long}` });
  }

  #failed(problem) {
    this.#running = false;
    if (problem.code === "superseded" || problem.code === "cancelled") return this.#say({ hint: "" });
    if (problem.code === "unreachable") return this.#say({ hint: "" }); // the page says so as a whole
    this.#say({ hint: "", problem });
  }

  #dropped(whole) {
    this.#offered = "";
    this.#running = false;
    if (whole) for (const stone of this.cage.children) stone.classList.add("set");
    else this.cage.replaceChildren();
    this.#say({ hint: whole ? (TOUCH ? "In the text." : "In the text. Ctrl-Z takes it back.") : "" });
  }

  /** Draws after the editor is done with the change that led here. */
  #say({ hint, spoken = "", problem }) {
    if (hint !== undefined) this.#hint = { seen: hint, spoken };
    if (problem !== undefined) this.#problem = problem;
    queueMicrotask(() => this.draw());
  }

  #readings() {
    const { timings, trimmed, reused_tokens: reused } = this.#outcome ?? {};
    const rate = timings?.decode_ms && timings.generated_tokens ? timings.generated_tokens / (timings.decode_ms / 1000) : null;
    const cut = trimmed && [
      trimmed.prefix_chars && `${plural(trimmed.prefix_chars, "character")} before`,
      trimmed.suffix_chars && `${count(trimmed.suffix_chars)} after`,
      trimmed.files && plural(trimmed.files, "file"),
    ].filter(Boolean).join(", ");
    return [
      ["First token after", milliseconds(timings?.first_token_ms)],
      ["Speed", tokensPerSecond(rate ?? (timings ? this.appliance.engine?.tokens_per_second : null))],
      ["Prompt reused", reused === null || reused === undefined ? NONE : `${count(reused)} of ${plural(timings.prompt_tokens, "token")}`],
      ["Trimmed", trimmed ? cut || "nothing" : NONE],
    ];
  }

  #set(name, value) {
    this.#settings = { ...this.#settings, [name]: value };
    localStorage.setItem(SETTINGS_KEY, JSON.stringify(this.#settings));
    this.completer.refuse(this.#editor.view);
    this.draw();
  }

  async #showPrompt() {
    let shown = html`<p class="quiet" role="status">Asking…</p>`;
    const made = ({ pieces, prompt_tokens: tokens }) => html`
      <p class="quiet">${plural(tokens, "token")}. Marked pieces are control tokens; all else is text, whatever it looks like.</p>
      <pre class="prompt" tabindex="0" aria-label="Prompt">${pieces.map(({ text, control }) => (control ? html`<mark>${text}</mark>` : text))}</pre>`;
    await openDialog(
      render,
      "The exact prompt",
      (close) => html`<h2>The exact prompt</h2>${shown}
        <p class="actions"><button type="button" autofocus @click=${() => close()}>Close</button></p>`,
      async (draw) => {
        shown = await this.appliance.call("complete.prompt", this.#asked).then(made, problemNote);
        draw();
      },
    );
    this.#editor.view.focus();
  }

  #curl() {
    const { doc, selection } = this.#editor.view.state;
    const cursor = selection.main.head;
    const body = this.#asked ?? this.#request({ prefix: doc.sliceString(0, cursor), suffix: doc.sliceString(cursor) });
    const quoted = JSON.stringify(body).replaceAll("'", "'\\''");
    return `curl -H "Authorization: Bearer $ROCKFILL_TOKEN" ${new URL("api/command/complete.start", document.baseURI)} -d '${quoted}'`;
  }
}

/** A press takes neither the cursor out of the text nor the keyboard off a phone's screen. */
const keepFocus = (event) => event.preventDefault();

function readSettings() {
  try {
    const kept = JSON.parse(localStorage.getItem(SETTINGS_KEY)) ?? {};
    return Object.fromEntries(Object.entries(kept).filter(([name, value]) => typeof value === typeof DEFAULTS[name]));
  } catch {
    return {};
  }
}
