"""From a context to the pieces of a prompt: control tokens as `Marker`, everything else as text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rockfill.errors import Code, Problem
from rockfill.fim.context import Context, ContextFile, FileCost, TokensOf, Trimmed, trim
from rockfill.fim.families import Family, FileLayout, Marker, Order, Part, Slot, Template

if TYPE_CHECKING:
    from collections.abc import Iterator

Piece = Marker | str

# What llama.cpp's server writes where a path is asked for and none is known (tools/server/server-common.cpp).
_NO_PATH = "filename"

# No path that Linux opens is longer (PATH_MAX).
_MOST_PATH_CHARS = 4096


def render(family: Family, order: Order, context: Context, *, allow_unverified: bool = False) -> tuple[Piece, ...]:
    """The prompt as pieces in order, BOS aside.

    Each `Marker` is one control token of the vocabulary; each str is tokenised by itself as ordinary text, whatever
    it looks like. No two str follow each other and none is empty. Files are left out if the family has no layout for
    them. Raises `fim_unsupported` if the family has no such order, or an unverified one that was not allowed.
    """
    template = family.template(order)
    if template is None or not (template.verified or allow_unverified):
        known = " or ".join(family.orders)
        raise Problem(
            Code.FIM_UNSUPPORTED,
            f"models of the {family.name} family are not known to take {order} prompts",
            f"Use {known}." if known else "",
            family=family.name,
            order=order,
        )
    return tuple(_joined(_fill(template, family.files, context)))


def overhead(family: Family, order: Order, tokens_of: TokensOf, *, allow_unverified: bool = False) -> int:
    """How many tokens a prompt of this order has besides its prefix, its suffix and its files; BOS included."""
    pieces = render(family, order, Context(prefix=""), allow_unverified=allow_unverified)
    return int(family.bos) + _tokens(pieces, tokens_of)


def fit(
    family: Family,
    order: Order,
    context: Context,
    prompt_tokens: int,
    tokens_of: TokensOf,
    *,
    prefix_share: float = 0.75,
    allow_unverified: bool = False,
) -> Trimmed:
    """`context` trimmed so that its rendered prompt has at most `prompt_tokens`, BOS and markers included.

    Files that the family has no layout for are dropped and counted as such. `tokens` of the result leaves the
    overhead out.
    """
    budget = prompt_tokens - overhead(family, order, tokens_of, allow_unverified=allow_unverified)
    layout = family.files
    if layout is None:
        trimmed = trim(replace(context, files=()), budget, tokens_of, prefix_share=prefix_share)
        return replace(trimmed, files_dropped=len(context.files))
    cost = FileCost()
    if context.files:
        frame = _fill_parts((*layout.lead, *layout.current), path=context.path)
        cost = FileCost(_tokens(frame, tokens_of), lambda file: _file_overhead(layout, file, tokens_of))
    return trim(context, budget, tokens_of, prefix_share=prefix_share, file_cost=cost)


def _file_overhead(layout: FileLayout, file: ContextFile, tokens_of: TokensOf) -> int:
    missing_newline = not file.text.endswith("\n")
    if len(file.path) > _MOST_PATH_CHARS:  # not worth counting; a character has at most as many tokens as bytes
        return _tokens(_fill_parts(layout.each), tokens_of) + 4 * len(file.path) + missing_newline
    return _tokens(_fill_parts(layout.each, path=file.path), tokens_of) + missing_newline


def _tokens(pieces: Iterator[Piece] | tuple[Piece, ...], tokens_of: TokensOf) -> int:
    return sum(1 if isinstance(piece, Marker) else tokens_of(piece) for piece in pieces)


def _fill(template: Template, layout: FileLayout | None, context: Context) -> Iterator[Piece]:
    for part in template.parts:
        if part is Slot.FILES:
            if layout is not None and context.files:
                yield from _fill_parts(layout.lead)
                for file in context.files:
                    yield from _fill_parts(layout.each, path=file.path, text=file.text)
                yield from _fill_parts(layout.current, path=context.path)
        elif part is Slot.PREFIX:
            yield context.prefix
        elif part is Slot.SUFFIX:
            yield context.suffix
        elif part is Slot.SPACE:
            yield " "
        else:
            assert not isinstance(part, Slot), f"{part} stands only in a file layout"
            yield part


def _fill_parts(parts: tuple[Part, ...], *, path: str = "", text: str = "") -> Iterator[Piece]:
    for part in parts:
        if part is Slot.PATH:
            yield path or _NO_PATH
        elif part is Slot.TEXT:
            yield text if text.endswith("\n") or not text else text + "\n"
        else:
            assert not isinstance(part, Slot), f"{part} stands only in a template"
            yield part


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        if text:
            yield text
            text = ""
        yield piece
    if text:
        yield text
