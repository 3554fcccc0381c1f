"""PROTOCOL.md names what there is, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from rockfill.api.commands.http import COMMANDS
from rockfill.link.messages import TO_DAEMON, TO_WORKER

DOCUMENT = (Path(__file__).parents[3] / "daemon" / "PROTOCOL.md").read_text()


def test_every_command_stands_in_the_document_with_its_scope() -> None:
    rows = re.findall(r"^\| ((?:`\w+\.\w+`(?: · )?)+) \| (\w+) \|", DOCUMENT, re.MULTILINE)
    documented = {name: scope for names, scope in rows for name in re.findall(r"`([\w.]+)`", names)}
    assert documented == {command.type: command.scope.value for command in COMMANDS}


def test_every_message_of_the_link_stands_in_the_document_with_its_fields() -> None:
    for message in (*TO_WORKER, *TO_DAEMON):
        described = re.search(rf"`{message.TYPE} {{([^}}`]*)}}`", DOCUMENT)
        assert described, message.TYPE
        fields = {name.partition(":")[0].strip() for name in described[1].split(",")}
        assert fields - {"…"} <= set(message.__dataclass_fields__), message.TYPE
        if "…" not in described[1]:
            assert fields == set(message.__dataclass_fields__) - {"TYPE"}, message.TYPE
