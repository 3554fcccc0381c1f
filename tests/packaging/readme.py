"""What the README tells people to type."""

from __future__ import annotations

import re

from tests.appliance import ROOT


def _chapter(heading: str) -> str:
    text = (ROOT / "README.md").read_text()
    found = re.search(
        rf"(?ms)^(#+) {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", re.sub(r"(?m)^# (?!Rockfill)", "\0# ", text)
    )
    assert found is not None, f"no chapter {heading}"
    return found[2].replace("\0", "")


def blocks(heading: str) -> list[list[str]]:
    """The commands of each block of shell in the chapter of that name, without their comments."""
    found = re.findall(r"(?ms)^```sh\n(.*?)^```$", _chapter(heading))
    assert found, f"nothing to type in {heading}"
    return [[re.sub(r"\s+# .*", "", line) for line in block.splitlines()] for block in found]


def paths(heading: str) -> list[str]:
    """The paths that the chapter of that name lists in its table."""
    found = re.findall(r"(?m)^\| `(/[^`]+)`", _chapter(heading))
    assert found, f"no paths in {heading}"
    return found
