// The editor: a textarea, and over it the same text with what is offered in its place.

import { complete } from "./api.js";
import { firstWord, Offer } from "./offer.js";

const PAUSE_MS = 300; // after the last key; what is typed on while a completion runs costs the appliance its prefill
const MAX_TOKENS = 64;

/**
 * Runs completions at the cursor of `area`, one at a time. `on` is told: `begun()`, `grew(text)`,
 * `shown(rest, offer)` after every change of either, `ended(report, offer)`, `failed(problem)`, `dropped()`.
 */
export class Editor {
  #offer = null;
  #run = null;
  #timer = 0;
  #rest = "";

  constructor({ sheet, area, overlay, mode, automatic, on }) {
    Object.assign(this, { sheet, area, mode, automatic, on });
    [this.before, this.ghost, this.after] = overlay.children;
    area.addEventListener("input", (event) => this.#edited(event));
    area.addEventListener("keydown", (event) => this.#pressed(event));
    document.addEventListener("selectionchange", () => this.#settle());
    mode.addEventListener("change", () => this.refuse());
    this.#draw();
  }

  /** Ask for a completion at the cursor; one that is under way or offered is given up. */
  async complete() {
    this.refuse();
    const { value, selectionEnd } = this.area;
    this.area.setSelectionRange(selectionEnd, selectionEnd);
    const offer = (this.#offer = new Offer(value.slice(0, selectionEnd), value.slice(selectionEnd)));
    const run = (this.#run = new AbortController());
    const rockfill = { mode: this.mode.value };
    this.on.begun();
    try {
      let report = null;
      const request = { prompt: offer.prefix, suffix: offer.suffix, max_tokens: MAX_TOKENS, rockfill };
      for await (const event of complete(request, run.signal)) {
        const text = event.choices[0]?.text.replaceAll("\r", ""); // as a textarea would
        if (text) {
          offer.text += text;
          this.on.grew(text);
          this.#settle();
        }
        if (event.rockfill) report = { ...event.rockfill, finish: event.choices[0].finish_reason };
      }
      offer.streaming = false;
      this.on.ended(report, offer);
      this.#settle();
    } catch (error) {
      if (run.signal.aborted) return;
      this.refuse();
      this.on.failed(error);
    }
  }

  /** Put `text`, which begins what is offered, into the document; all that is offered if it is not given. */
  accept(text = this.#rest) {
    if (!text) return;
    this.area.focus();
    // Deprecated, and still the only way to insert text that undo knows of.
    if (!document.execCommand("insertText", false, text)) {
      const { selectionStart, selectionEnd } = this.area;
      this.area.setRangeText(text, selectionStart, selectionEnd, "end");
      this.#edited({});
    }
  }

  /** Give up what is offered or under way; the appliance stops working on it. */
  refuse() {
    clearTimeout(this.#timer);
    if (!this.#offer) return;
    this.#run.abort();
    this.#offer = null;
    this.#draw();
    this.on.dropped();
  }

  #edited(event) {
    clearTimeout(this.#timer);
    if (this.#offer) this.#settle();
    else this.#draw();
    const { selectionStart: cursor, value } = this.area;
    const typed = event.inputType?.startsWith("insert") && !event.isComposing;
    if (this.#offer || !typed || /^\w/.test(value.slice(cursor)) || !this.automatic()) return;
    this.#timer = setTimeout(() => {
      if (this.area.selectionStart === cursor && this.area.selectionEnd === cursor) this.complete();
    }, PAUSE_MS);
  }

  #pressed(event) {
    const { key, ctrlKey, altKey, shiftKey, isComposing } = event;
    if (isComposing) return;
    if (ctrlKey && event.code === "Space") this.complete();
    else if (key === "Escape") this.refuse();
    else if (key === "Tab" && !shiftKey && this.#rest) this.accept();
    // macOS keeps Ctrl-→ to itself; there a word further is Option-→.
    else if (key === "ArrowRight" && (ctrlKey || altKey) && this.#rest) this.accept(firstWord(this.#rest));
    else return;
    event.preventDefault();
  }

  /** Brings what is shown in line with the text, the cursor and the offer. */
  #settle() {
    if (!this.#offer) return;
    const { value, selectionStart, selectionEnd } = this.area;
    const rest = selectionStart === selectionEnd ? this.#offer.rest(value, selectionStart) : null;
    if (rest === null) return this.refuse();
    const offer = this.#offer;
    if (!rest && !offer.streaming) this.#offer = null; // all of it is in the text
    this.#draw(rest);
    this.on.shown(rest, offer);
  }

  #draw(rest = "") {
    this.#rest = rest;
    const { value, selectionStart } = this.area;
    this.before.textContent = value.slice(0, selectionStart);
    this.ghost.textContent = rest;
    this.after.textContent = `${value.slice(selectionStart)}\u200b`; // gives an empty last line its height
    this.sheet.classList.toggle("offering", rest !== "");
    if (!rest) return;
    const [ghost, sheet] = [this.ghost.getBoundingClientRect(), this.sheet.getBoundingClientRect()];
    this.sheet.scrollTop += Math.max(0, Math.min(ghost.bottom - sheet.bottom, ghost.top - sheet.top));
  }
}
