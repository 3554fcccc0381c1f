// A completion that is offered at a place in the text. Pure: no document, no network.

/** What the model wants to put between `prefix` and `suffix`; `text` grows while `streaming`. */
export class Offer {
  text = "";
  streaming = true;

  constructor(prefix, suffix) {
    this.prefix = prefix;
    this.suffix = suffix;
  }

  /**
   * What is still to be accepted when the editor holds `value` with the cursor at `cursor`, or null where that no
   * longer is our place with some of the offer typed in. Whoever types ahead of a stream, and rightly, keeps it.
   */
  rest(value, cursor) {
    const from = this.prefix.length;
    if (cursor < from || value.slice(0, from) !== this.prefix || value.slice(cursor) !== this.suffix) return null;
    const typed = value.slice(from, cursor);
    if (this.text.startsWith(typed)) return this.text.slice(typed.length);
    return this.streaming && this.text && typed.startsWith(this.text) ? "" : null;
  }
}

/** The next word of `text` with the whitespace before it, or the next run of punctuation. */
export function firstWord(text) {
  return text.match(/^\s*(?:[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]+|$)/u)[0];
}
