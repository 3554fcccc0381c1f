"""The commands in PROTOCOL.md, and the golden copy of `/api/protocol.json`: made from the table of commands.

python -m tests.protocol_document writes both anew; unit/api/test_protocol_document.py fails while they are stale.
"""

from __future__ import annotations

import json
from pathlib import Path

from rockfill.api.commands.document import chapter, protocol

PROTOCOL = Path(__file__).parent.parent / "daemon" / "PROTOCOL.md"
GOLDEN = Path(__file__).parent / "protocol" / "golden" / "protocol.json"
BEGIN, END = "<!-- made by tests/protocol_document.py -->\n", "<!-- end -->"


def written() -> str:
    """The chapter as it stands in PROTOCOL.md."""
    return PROTOCOL.read_text().partition(BEGIN)[2].partition(END)[0]


def golden() -> str:
    """What `/api/protocol.json` says, laid out so that a change is a readable diff."""
    return json.dumps({**protocol(), "version": "VERSION"}, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    before, _, rest = PROTOCOL.read_text().partition(BEGIN)
    PROTOCOL.write_text(before + BEGIN + chapter() + END + rest.partition(END)[2])
    GOLDEN.write_text(golden())
