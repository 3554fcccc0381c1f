"""The prompt of the next keystroke, made from the last one, for an engine that reuses the beginning they share: pure.

Trimming each request anew moves the prompt's beginning every dozen tokens, and in the order prefix, suffix, middle the
suffix is read again at every key. Both cost hundreds of milliseconds on the NPU. So as long as somebody goes on typing
where they were, the beginning stays, what was typed is added, and what was read before costs nothing.

Where it is added: in the order prefix, suffix, middle behind the marker for the middle, as if the model had written it
so far; then only the typed tokens are read. A model is trained to go on from there, but the text of a middle never ends
within a token: a space belongs to the token that follows, and half a word is no token at all (measured with the bundled
model in that order: after a space the next word was right 1 time instead of 9 of 30, within a word 25 times instead of
49 of 278, and elsewhere 34 times instead of 32 of 92; ``python -m tests.bench.behind_marker`` measures it again). There
it is added to the prefix, whose end may be anywhere, and the suffix is read again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rockfill.fim.context import Context, ContextFile

# A prompt may grow to so many times its budget before it is trimmed anew. The budget is for what has to be read.
MOST_GROWTH = 2

# What somebody types between two requests is short; a longer text is another place, or a paste.
MOST_TYPED_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Laid:
    """A prompt that was made: the `context` it was laid out from, trimmed, of `tokens` in all; the `middle` behind it
    is not counted. `prefix_cut` and `suffix_cut`: whether more text stood there; `files`: all that were given."""

    context: Context
    tokens: int
    prefix_cut: bool
    suffix_cut: bool
    files: tuple[ContextFile, ...]


def typed_since(laid: Laid, now: Context) -> str | None:
    """What has been typed at the cursor since `laid`; None if that is not all that has changed.

    Editors send windows that slide by lines, so what is kept of a prefix that was cut may stand anywhere; one that was
    not cut still begins the document.
    """
    kept, suffix = laid.context.prefix, laid.context.suffix
    same_suffix = now.suffix.startswith(suffix) if laid.suffix_cut else now.suffix == suffix
    # Where text had to be cut no file had room, whichever they were.
    same_files = laid.prefix_cut or laid.suffix_cut or (now.files, now.path) == (laid.files, laid.context.path)
    if not kept or not same_suffix or not same_files:
        return None
    earliest = max(0, len(now.prefix) - len(kept) - MOST_TYPED_CHARS)
    if laid.prefix_cut:
        at = now.prefix.rfind(kept, earliest)
    else:
        at = 0 if not earliest and now.prefix.startswith(kept) else -1
    return now.prefix[at + len(kept) :] if at >= 0 else None


def goes_behind_marker(typed: str) -> bool:
    """Whether a model can go on after `typed` as its own text: it does not end where a token may not."""
    last = typed[-1:]
    return not (last in (" ", "\t", "_") or last.isalnum())


def grown(laid: Laid, typed: str) -> Context:
    """The context of `laid` with `typed` in its prefix."""
    return replace(laid.context, prefix=laid.context.prefix + typed)
