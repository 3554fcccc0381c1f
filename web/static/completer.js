// Asks for completions at the editor's cursor, one at a time, and puts into the text what is accepted.

import { ghostField, grew, show } from "./ghost.js";
import { firstWord, Offer } from "./offer.js";
import { EditorView, isolateHistory, keymap, Prec, Transaction } from "./vendor/editor.js";

const MARGIN_PX = 8;
const PAUSE_MS = 250; // after the last key; what is typed on while a completion runs costs the appliance its prefill

/**
 * `start(offer, told)` begins a completion and gives `{ cancel() }`; `told` is called with `{delta}`, then once with
 * `{done}` or `{problem}`. `automatic()` says whether typing may ask by itself. `on` hears: `begun()`, `grew(text)`,
 * `shown(rest, offer)` after every change of either, `ended(done, offer)`, `failed(problem)`, `dropped(whole)`: whether all of it is in the text.
 */
export class Completer {
  #run = null;
  #timer = 0;

  constructor({ start, automatic, on }) {
    Object.assign(this, { start, automatic, on });
  }

  /** What makes an editor one that completes. */
  get extension() {
    return [
      ghostField,
      Prec.highest(keymap.of([
        { key: "Ctrl-Space", run: (view) => (this.complete(view), true) },
        { key: "Tab", run: (view) => this.accept(view) },
        // macOS keeps Ctrl-→ to itself; there a word further is Option-→.
        ...["Ctrl-ArrowRight", "Alt-ArrowRight"].map((key) => ({ key, run: (view) => this.acceptWord(view) })),
        { key: "Escape", run: (view) => this.refuse(view) },
      ])),
      EditorView.updateListener.of((update) => this.#updated(update)),
    ];
  }

  /** Ask at the cursor; a completion that is under way or offered is given up. */
  complete(view) {
    this.refuse(view);
    const { doc, selection } = view.state;
    const cursor = selection.main.head;
    if (!selection.main.empty || selection.ranges.length > 1) view.dispatch({ selection: { anchor: cursor } });
    const offer = new Offer(doc.sliceString(0, cursor), doc.sliceString(cursor));
    this.on.begun();
    show(view, offer);
    const run = (this.#run = this.start(offer, (told) => run === this.#run && this.#told(view, offer, told)));
  }

  /** Put all that is offered into the text; false if nothing is. */
  accept(view) {
    return this.#insert(view, view.state.field(ghostField)?.rest);
  }

  /** Put the next word of it into the text. */
  acceptWord(view) {
    const rest = view.state.field(ghostField)?.rest;
    return this.#insert(view, rest && firstWord(rest));
  }

  /** Give up what is offered or under way; the appliance stops working on it. False if nothing was. */
  refuse(view) {
    clearTimeout(this.#timer);
    if (!view.state.field(ghostField)) return false;
    show(view, null);
    return true;
  }

  #insert(view, text) {
    if (!text) return false;
    view.dispatch({
      ...view.state.replaceSelection(text),
      annotations: [Transaction.userEvent.of("input.complete"), isolateHistory.of("full")],
      scrollIntoView: true,
    });
    view.focus();
    return true;
  }

  #told(view, offer, { delta, done, problem }) {
    if (problem) {
      this.refuse(view);
      return this.on.failed(problem);
    }
    if (done) {
      offer.streaming = false;
      this.#run = null;
      this.on.ended(done, offer);
    } else {
      offer.text += delta;
      this.on.grew(delta);
    }
    grew(view);
  }

  #updated({ view, startState, state, transactions, docChanged }) {
    const [before, after] = [startState.field(ghostField, false), state.field(ghostField)];
    if (before && !after) {
      this.#run?.cancel();
      this.#run = null;
      const { offer } = before;
      const whole = docChanged && !offer.streaming && offer.rest(state.doc.toString(), state.selection.main.head) === "";
      this.on.dropped(whole);
    } else if (after && (before?.rest !== after.rest || before.offer !== after.offer)) {
      this.on.shown(after.rest, after.offer);
      view.requestMeasure(bringIntoView);
    }
    if (!docChanged) return;
    clearTimeout(this.#timer);
    const typed = transactions.some((transaction) => transaction.isUserEvent("input.type"));
    const { head } = state.selection.main;
    if (after || !typed || view.composing || /^\w/.test(state.doc.sliceString(head, head + 1)) || !this.automatic()) return;
    this.#timer = setTimeout(() => {
      const now = view.state.selection.main;
      if (now.empty && now.head === head && view.hasFocus) this.complete(view);
    }, PAUSE_MS);
  }
}

/** Scrolls what is offered into view, its first line before all. */
const bringIntoView = {
  key: "ghost",
  read(view) {
    const ghost = view.contentDOM.querySelector(".ghost")?.getBoundingClientRect();
    const { top, bottom } = view.scrollDOM.getBoundingClientRect();
    return ghost ? Math.max(0, Math.min(ghost.bottom - bottom + MARGIN_PX, ghost.top - top)) : 0;
  },
  write(below, view) {
    if (below) view.scrollDOM.scrollTop += below;
  },
};
