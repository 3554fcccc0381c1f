"""From a request to the ids of its prompt, for any engine and family."""

from __future__ import annotations

import itertools
import re
from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from rockfill.errors import Code, Problem
from rockfill.fim.context import Context, ContextFile, trim
from rockfill.fim.families import BY_NAME, FAMILIES, Marker
from rockfill.fim.growth import MOST_GROWTH, Laid, goes_behind_marker, grown, typed_since
from rockfill.fim.prompt import fit, render
from rockfill.link.messages import Generate, Prompt, PromptPiece, Trimmed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rockfill.fim.families import Family, FileLayout, Order
    from rockfill.fim.prompt import Piece
    from rockfill.link.messages import Render
    from rockfill.session import Session

# What a prompt leaves to the completion where the context is short: at least this share of it.
COMPLETION_SHARE = 0.25

# A piece is counted before it is taken, and the text behind the cursor is the same at each key.
TEXTS_KEPT = 16


class Prompter:
    """Makes the ids of a prompt: the family's markers as control tokens, all else as ordinary text.

    `order` is the order in which it can fill in the middle, None if the model can't. `stop_ids` end a completion.
    """

    def __init__(self, session: Session, family: str | None, order: Order | None = None) -> None:
        """`family` None, or one whose tokens the vocabulary lacks, means: find out from the vocabulary.

        `order` is taken where the family has it at all, also from memory only; else the family's default.
        """
        self._session = session
        self._facts = session.facts
        self._tokenized: OrderedDict[str, list[int]] = OrderedDict()
        self._laid: Laid | None = None  # the last prompt, while the engine has it in its cache
        self._ids: dict[Marker, int] = {}
        self._family = self._usable(family)
        self.order: Order | None = None
        if self._family is not None:
            wanted = self._family.template(order) if order is not None else None
            self.order = order if wanted is not None and self._has(wanted.parts) else self._family.default_order
        self.stop_ids = self._resolve(self._family.stop_markers) if self._family is not None else frozenset()
        self._control_ids = frozenset(self._ids.values())
        written = sorted({marker.text for marker in self._ids}, key=len, reverse=True)
        self._controls = re.compile("|".join(map(re.escape, written))) if written else None

    def _usable(self, name: str | None) -> Family | None:
        """The family named if the vocabulary has every token for its prompt, else the likeliest of those it fits."""
        named = BY_NAME.get(name or "")
        fitting = [family for family in (named, *FAMILIES) if family is not None and self._fits(family)]
        if not fitting:
            return None
        # Several families write their prompt alike (Qwen, Granite, CodeGemma); their ends tell them apart.
        family = named if named in fitting else max(fitting, key=self._share_of_ends)
        if family.files is not None and not self._has(_parts(family.files)):
            return replace(family, files=None)
        return family

    def _fits(self, family: Family) -> bool:
        template = family.template(family.default_order)
        assert template is not None
        return self._has(template.parts)

    def _share_of_ends(self, family: Family) -> float:
        ends = family.stop_markers
        return sum(self._session.token_id(marker.text) is not None for marker in ends) / len(ends)

    def _has(self, parts: Sequence[object]) -> bool:
        markers = [part for part in parts if isinstance(part, Marker)]
        return len(self._resolve(markers)) == len(set(markers))

    def _resolve(self, markers: Sequence[Marker]) -> frozenset[int]:
        """The ids of those of `markers` that the vocabulary has."""
        for marker in markers:
            if marker not in self._ids:
                token_id = self._session.token_id(marker.text)
                if token_id is not None:
                    self._ids[marker] = token_id
        return frozenset(self._ids[marker] for marker in markers if marker in self._ids)

    def tokenize(self, text: str) -> Sequence[int]:
        """Ids of ordinary text, none of them a control token of the family. The last few texts cost nothing again."""
        ids = self._tokenized.pop(text, None)
        if ids is None:
            ids = self._tokenize(text)
        self._tokenized[text] = ids
        if len(self._tokenized) > TEXTS_KEPT:
            self._tokenized.popitem(last=False)
        return ids

    def _tokenize(self, text: str) -> list[int]:
        """Sessions promise already that no id is a control token.

        A vocabulary may break the promise for them: llama.cpp matches tokens that a GGUF marks user-defined rather
        than control in any text. Then each such place is cut in two, where no tokeniser can see it.
        """
        ids = self._session.tokenize(text)
        if self._controls is None or self._control_ids.isdisjoint(ids):
            return ids
        ids, start = [], 0
        for match in self._controls.finditer(text):
            cut = match.start() + 1
            ids += self._session.tokenize(text[start:cut])
            start = cut
        ids += self._session.tokenize(text[start:])
        if not self._control_ids.isdisjoint(ids):
            raise Problem(
                Code.UNSUPPORTED,
                "The text can't be given to this model without becoming a control token.",
                "Remove the model's control tokens from the text.",
            )
        return ids

    def text_of(self, token_ids: Sequence[int]) -> str:
        """What `token_ids` are as text, control tokens as the vocabulary writes them. Raises `invalid_value`."""
        unknown = next((token for token in token_ids if not 0 <= token < self._facts.vocabulary_tokens), None)
        if unknown is not None:
            raise Problem(
                Code.INVALID_VALUE,
                f"tokens: {unknown} is not in the vocabulary.",
                f"Its ids go from 0 to {self._facts.vocabulary_tokens - 1}.",
            )
        return self._session.detokenize(list(token_ids)) if token_ids else ""

    def shown(self, request: Render) -> Prompt:
        """The prompt for people: what its ids stand for, each control token by itself. Raises as `prompt` does."""
        wanted = Generate(
            request.id, request.prefix, request.suffix, request.files, request.max_tokens, request.budget_tokens
        )
        laid = self._laid
        try:
            ids, _, trimmed = self.prompt(wanted)
        finally:
            self._laid = laid  # nothing runs, and the engine's cache stays what it is
        controls = self._control_ids | {self._facts.bos_id}
        pieces: list[PromptPiece] = []
        for control, group in itertools.groupby(ids, lambda token_id: token_id in controls):
            run = list(group)
            texts = [[token_id] for token_id in run] if control else [run]
            pieces += [PromptPiece(self._session.detokenize(text), control) for text in texts]
        return Prompt(tuple(pieces), len(ids), trimmed)

    def prompt(self, request: Generate) -> tuple[list[int], int, Trimmed]:
        """The prompt's ids, how many tokens the completion may have, and what was left out.

        Raises `fim_unsupported` where there is a suffix and the model can't fill in.
        """
        context_tokens = self._facts.context_tokens
        max_tokens = min(request.max_tokens, int(context_tokens * COMPLETION_SHARE))
        budget = context_tokens - max_tokens
        if request.budget_tokens:
            budget = min(budget, request.budget_tokens)
        laid, self._laid = self._laid, None
        # Only who types keeps to a budget, and comes back to the same place.
        may_grow = bool(self._facts.reuses_prefix and request.budget_tokens and request.fim_order is None)
        files = tuple(ContextFile(file.path, file.text) for file in request.files)
        pieces: Sequence[Piece]
        if request.suffix is None:
            fitted = trim(Context(request.prefix), budget - 1, self._count)
            pieces = (fitted.context.prefix,)
            trimmed = Trimmed(fitted.prefix_chars_dropped, 0, len(files))
        else:
            if self._family is None or self.order is None:
                raise Problem(
                    Code.FIM_UNSUPPORTED,
                    "The loaded model can't fill in the middle.",
                    "Leave the suffix out, or load a model that can, such as CodeGemma or Qwen2.5-Coder.",
                )
            order = request.fim_order or self.order
            template = self._family.template(order)
            if template is None or not self._has(template.parts):
                raise Problem(Code.FIM_UNSUPPORTED, f"The loaded model has no {order.upper()} prompt.")
            context = Context(request.prefix, request.suffix, files)
            if may_grow and laid is not None:
                most = min(context_tokens - max_tokens, budget * MOST_GROWTH)
                found = self._grown(self._family, order, laid, context, budget, most)
                if found is not None:
                    ids, trimmed = found
                    return ids, max_tokens, trimmed
            # Which order to trust was decided at the load, or the caller wants to find out.
            fitted = fit(self._family, order, context, budget, self._count, allow_unverified=True)
            pieces = render(self._family, order, fitted.context, allow_unverified=True)
            trimmed = Trimmed(fitted.prefix_chars_dropped, fitted.suffix_chars_dropped, fitted.files_dropped)
        ids = self._to_ids(pieces)
        if request.suffix is not None and may_grow:
            cut = bool(trimmed.prefix_chars), bool(trimmed.suffix_chars)
            self._laid = Laid(fitted.context, len(ids), *cut, files)
        if not ids:
            raise Problem(Code.INVALID_VALUE, "prompt: must not be empty for this model.", "Send some text.")
        return ids, max_tokens, trimmed

    def _grown(
        self, family: Family, order: Order, laid: Laid, context: Context, budget: int, most: int
    ) -> tuple[list[int], Trimmed] | None:
        """The prompt for `context` made from the last one, if what has to be read of it is within `budget`, and all of
        it within `most`."""
        typed = typed_since(laid, context)
        typed_tokens = self._count(typed) if typed else 0
        if typed is None or laid.tokens + typed_tokens > most:
            return None
        trimmed = Trimmed(
            len(context.prefix) - len(laid.context.prefix) - len(typed),
            len(context.suffix) - len(laid.context.suffix),
            len(context.files) - len(laid.context.files),
        )
        behind = order == "psm" and goes_behind_marker(typed)
        laid_out = laid.context if behind else grown(laid, typed)
        ids = self._to_ids(render(family, order, laid_out, allow_unverified=True))
        to_read = typed_tokens + (0 if behind or order == "spm" else self._count(laid.context.suffix))
        if to_read > budget or len(ids) > most:
            return None
        self._laid = replace(laid, context=laid_out, tokens=len(ids))
        return ([*ids, *self.tokenize(typed)] if behind else ids), trimmed

    def _count(self, text: str) -> int:
        return len(self.tokenize(text))

    def _to_ids(self, pieces: Sequence[Piece]) -> list[int]:
        wants_bos = self._family.bos if self._family is not None else self._facts.adds_bos
        ids = [self._facts.bos_id] if wants_bos and self._facts.bos_id is not None else []
        for piece in pieces:
            if isinstance(piece, Marker):
                ids.append(self._ids[piece])
            else:
                ids += self.tokenize(piece)
        return ids


def _parts(layout: FileLayout) -> tuple[object, ...]:
    return (*layout.lead, *layout.each, *layout.current)
