"""Reading back prompts that a client has already templated, often for another family than the one that is loaded.

Zed, Continue, twinny, llm-ls and minuet send such prompts. Only a whole prompt counts: anchored at both ends, each
marker exactly once. Text that merely contains a marker, such as source code about models, is none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rockfill.fim.context import Context, ContextFile
from rockfill.fim.families import FAMILIES, ORDERS, Family, FileLayout, Marker, Order, Slot, Template

# Clients that template for themselves may write BOS too; an engine adds its own.
_BOS = ("<bos>", "<s>", "<｜begin▁of▁sentence｜>", "<[begin▁of▁sentence]>")


@dataclass(frozen=True, slots=True)
class Recognised:
    """A prompt as its parts. Families that write the same prompt are not told apart: the first listed is named."""

    family: Family
    order: Order
    context: Context


def recognise(prompt: str) -> Recognised | None:
    """The context that `prompt` was made from, or None if it is no whole FIM prompt of a known family."""
    text = prompt
    for bos in _BOS:
        if prompt.startswith(bos):
            text = prompt[len(bos) :]
            break
    for family in FAMILIES:
        for order in ORDERS:
            template = family.template(order)
            if template and (context := _read(text, template, family.files)):
                return Recognised(family, order, context)
    return None


def _read(text: str, template: Template, layout: FileLayout | None) -> Context | None:
    markers = [part for part in template.parts if isinstance(part, Marker)]
    if any(text.count(str(marker).strip()) != 1 for marker in markers):
        return None
    slots: dict[Slot, str] = {}
    open_slots: list[Slot] = []
    at = 0
    for part in template.parts:
        if isinstance(part, Slot):
            open_slots.append(part)
            continue
        found = text.find(str(part), at)
        if found < 0 or (found > at and not open_slots):
            return None
        slots.update(dict.fromkeys(open_slots, text[at:found]))
        open_slots = []
        at = found + len(str(part))
    if at < len(text) and not open_slots:
        return None
    slots.update(dict.fromkeys(open_slots, text[at:]))

    context = Context(prefix=slots[Slot.PREFIX], suffix=slots[Slot.SUFFIX])
    head = slots.get(Slot.FILES)
    if not head or layout is None:
        return context
    inside_prefix = Slot.PREFIX in open_slots and Slot.FILES in open_slots
    return _read_files(head, layout, context, inside_prefix=inside_prefix)


def _read_files(head: str, layout: FileLayout, context: Context, *, inside_prefix: bool) -> Context | None:
    """`head` split at what stands between files. Where files stand inside the prefix, text without any is prefix."""
    if layout.each[0] is Slot.TEXT:
        *texts, rest = head.split(str(layout.each[1]))
        files = tuple(ContextFile("", text) for text in texts)
        return None if rest else Context(context.prefix, context.suffix, files)

    separator = str(layout.each[0])
    if isinstance(layout.each[0], Marker):
        lead, *blocks = head.split(separator)
    elif inside_prefix:  # ordinary text separates files only at the start of a line
        lead, *blocks = re.split(f"^{re.escape(separator)}", head, flags=re.MULTILINE)
    else:  # text before the first marker that only ordinary text introduces could be anything
        return None
    if inside_prefix and (lead or not blocks):
        return context
    starts_rightly = lead.startswith(str(layout.lead[0])) if layout.lead and lead else not lead
    if not blocks or not starts_rightly:
        return None

    has_path = Slot.PATH in layout.each
    named = [_path_and_text(block) if has_path else ("", block) for block in blocks]
    if None in named:
        return context if inside_prefix else None
    *files_named, (path, tail) = (entry for entry in named if entry is not None)
    if inside_prefix:
        # the blank line between files belongs to the layout
        files = tuple(ContextFile(name, text.removesuffix("\n")) for name, text in files_named)
        return Context(tail, context.suffix, files, path)
    files = tuple(ContextFile(name, text) for name, text in files_named)
    return None if tail else Context(context.prefix, context.suffix, files, path)


def _path_and_text(block: str) -> tuple[str, str] | None:
    path, newline, text = block.partition("\n")
    return (path, text) if newline else None
