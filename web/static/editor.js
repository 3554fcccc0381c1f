// The code editor: CodeMirror as it stands on the page, one state a file.

import {
  bracketMatching, Compartment, defaultKeymap, EditorState, EditorView, highlightActiveLine,
  highlightActiveLineGutter, highlightSpecialChars, HighlightStyle, history, historyKeymap, indentOnInput, indentUnit, keymap,
  lineNumbers, syntaxHighlighting, tags,
} from "./vendor/editor.js";
import { languageOf } from "./tabs.js";

// The colours are custom properties of page.css, so that they follow light and dark.
const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.modifier, tags.operatorKeyword], color: "var(--code-keyword)" },
  { tag: [tags.string, tags.special(tags.string), tags.regexp], color: "var(--code-string)" },
  { tag: [tags.number, tags.bool, tags.null, tags.atom], color: "var(--code-number)" },
  { tag: [tags.comment, tags.meta], color: "var(--code-comment)", fontStyle: "italic" },
  { tag: [tags.definition(tags.variableName), tags.function(tags.variableName), tags.function(tags.propertyName)], color: "var(--code-name)" },
  { tag: [tags.typeName, tags.className, tags.namespace, tags.tagName], color: "var(--code-type)" },
  { tag: [tags.heading, tags.strong], fontWeight: "bold" },
  { tag: tags.emphasis, fontStyle: "italic" },
]);

const theme = EditorView.theme({
  "&": { height: "100%", color: "inherit", backgroundColor: "transparent", fontSize: "var(--code-size)" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--code)", lineHeight: "1.6", fontVariantLigatures: "none" },
  // A blinking caret has the whole page drawn anew twice a second, for ever; this one is red enough to be found.
  ".cm-content": { caretColor: "var(--accent)", caretAnimation: "manual", padding: "0.75rem 0" },
  ".cm-line": { padding: "0 1rem 0 0.5rem" },
  ".cm-gutters": { backgroundColor: "transparent", color: "var(--quiet)", border: "none", userSelect: "none" },
  ".cm-lineNumbers .cm-gutterElement": { padding: "0 0.5rem 0 1rem", minWidth: "2.75rem" },
  ".cm-activeLine, .cm-activeLineGutter": { backgroundColor: "var(--line)" },
  ".cm-content ::selection": { backgroundColor: "var(--selection)" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--selection)" },
});

/**
 * Typing over a selection is done here instead of by the browser: Chromium keeps the look of what was there by inline
 * styles, which the page's policy forbids.
 */
function typeOver(event, view) {
  const typed = event.inputType === "insertText" && event.data && !event.isComposing;
  if (!typed || view.state.selection.main.empty) return false;
  event.preventDefault();
  view.dispatch(view.state.replaceSelection(event.data), { userEvent: "input.type", scrollIntoView: true });
  return true;
}

/** The editor in `parent`; `extensions` come before its own, `changed(docChanged)` hears of every change. */
export class CodeEditor {
  #language = new Compartment();
  #turn = 0;
  #nonce = document.getElementById("style").nonce;

  constructor(parent, extensions, changed) {
    this.extensions = [
      EditorView.cspNonce.of(this.#nonce),
      extensions,
      lineNumbers(),
      highlightActiveLineGutter(),
      highlightSpecialChars(),
      history(),
      indentOnInput(),
      indentUnit.of("    "),
      bracketMatching(),
      highlightActiveLine(),
      syntaxHighlighting(colours),
      EditorView.domEventHandlers({ beforeinput: typeOver }),
      keymap.of([...defaultKeymap, ...historyKeymap]),
      theme,
      EditorView.contentAttributes.of({
        "aria-label": "Code", "aria-describedby": "keys", autocapitalize: "off", autocorrect: "off", spellcheck: "false",
      }),
      EditorView.updateListener.of(({ docChanged, selectionSet }) => (docChanged || selectionSet) && changed(docChanged)),
    ];
    // Never without a state of ours: the nonce would come too late for the first styles.
    this.view = new EditorView({ parent, state: this.state("") });
  }

  /** A state for a file, its cursor at `cursor`. */
  state(text, cursor = 0) {
    const doc = EditorState.create({ doc: text }).doc;
    return EditorState.create({
      doc,
      selection: { anchor: Math.min(Math.max(0, cursor), doc.length) },
      extensions: [this.extensions, this.#language.of([])],
    });
  }

  /** Show `state`, read as the language of `name`. */
  async show(state, name) {
    const turn = ++this.#turn;
    this.view.setState(state);
    const language = languageOf(name);
    const support = language ? (await import(`./vendor/language-${language}.js`)).default() : [];
    if (turn === this.#turn) this.view.dispatch({ effects: this.#language.reconfigure(support) });
  }
}
