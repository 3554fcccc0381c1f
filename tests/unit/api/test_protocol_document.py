"""PROTOCOL.md names what there is, and nothing else."""

from __future__ import annotations

import ast
import re

from rockfill.api.commands.document import chapter, protocol
from rockfill.api.errors import STATUS, WEBSOCKET_CODES
from rockfill.errors import Code
from rockfill.link.messages import TO_DAEMON, TO_WORKER
from tests import protocol_document as document

STALE = "out of date: python -m tests.protocol_document"


def test_the_commands_in_the_document_are_those_of_the_table() -> None:
    assert document.written() == chapter(), STALE


def test_what_programs_are_told_is_the_golden_copy() -> None:
    """A change of the protocol is a visible diff."""
    assert document.GOLDEN.read_text() == document.golden(), STALE


def test_every_code_is_told_with_its_names() -> None:
    codes = protocol()["codes"]
    assert set(codes) == {code.value for code in Code}
    assert {code: told["status"] for code, told in codes.items()} == {c.value: status for c, status in STATUS.items()}
    renamed = {code: told["websocket"] for code, told in codes.items() if told["websocket"] != code}
    assert renamed == {code.value: name for code, name in WEBSOCKET_CODES.items()}


def test_every_message_of_the_link_stands_in_the_document_with_its_fields() -> None:
    text = document.PROTOCOL.read_text()
    for message in (*TO_WORKER, *TO_DAEMON):
        described = re.search(rf"`{message.TYPE} {{([^}}`]*)}}`", text)
        assert described, message.TYPE
        fields = {name.partition(":")[0].strip() for name in described[1].split(",")}
        assert fields - {"…"} <= set(message.__dataclass_fields__), message.TYPE
        if "…" not in described[1]:
            assert fields == set(message.__dataclass_fields__) - {"TYPE"}, message.TYPE


def test_every_event_that_is_published_stands_in_the_document() -> None:
    text = document.PROTOCOL.read_text()
    published = {
        constant.value
        for path in sorted((document.PROTOCOL.parent / "rockfill").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Event"
        for constant in ast.walk(call)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
        if re.fullmatch(r"\w+\.\w+", constant.value)
    }
    assert {"model.loaded", "engine.changed", "queue.full", "npu.hot"} <= published
    assert {type_ for type_ in published if f"`{type_}" not in text} == set()
