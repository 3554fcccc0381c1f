// What is offered, as the editor's state: shown at the cursor in grey, kept while it is typed on, dropped otherwise.

import { Decoration, EditorView, StateEffect, StateField, WidgetType } from "./vendor/editor.js";

const setOffer = StateEffect.define();
const offerGrew = StateEffect.define();

/** The offer in the editor, as `{ offer, rest }`, or null. */
export const ghostField = StateField.define({
  create: () => null,
  update(value, transaction) {
    for (const effect of transaction.effects) {
      if (effect.is(setOffer)) return effect.value && settled(effect.value, transaction.state);
    }
    if (!value) return null;
    const touched = transaction.docChanged || transaction.selection || transaction.effects.some((effect) => effect.is(offerGrew));
    return touched ? settled(value.offer, transaction.state) : value;
  },
  provide: (field) => EditorView.decorations.from(field, (value) => (value?.rest ? decorations(value) : Decoration.none)),
});

/** Show `offer` (null: none) in `view`. */
export const show = (view, offer) => view.dispatch({ effects: setOffer.of(offer) });

/** Take up that the offer of `view` has grown, or is whole. */
export const grew = (view) => view.dispatch({ effects: offerGrew.of(null) });

function settled(offer, state) {
  const { main, ranges } = state.selection;
  const rest = ranges.length === 1 && main.empty ? offer.rest(state.doc.toString(), main.head) : null;
  if (rest === null || (!rest && !offer.streaming)) return null;
  return { offer, rest, at: main.head };
}

const decorations = ({ rest, at }) => Decoration.set(Decoration.widget({ widget: new GhostText(rest), side: 1 }).range(at));

class GhostText extends WidgetType {
  constructor(text) {
    super();
    this.text = text;
  }

  get lineBreaks() {
    return this.text.split("\n").length - 1;
  }

  eq(other) {
    return other.text === this.text;
  }

  toDOM() {
    const element = document.createElement("span");
    element.className = "ghost";
    element.setAttribute("aria-hidden", "true"); // the status line says it, once
    element.textContent = this.text;
    return element;
  }

  updateDOM(element) {
    element.textContent = this.text;
    return true;
  }

  ignoreEvent() {
    return false;
  }
}
