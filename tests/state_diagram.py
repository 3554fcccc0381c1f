"""The diagram of the engine's lifecycle in ARCHITECTURE.md, made from the machine itself.

python -m tests.state_diagram        writes it anew; tests/unit/engine/test_diagram.py fails while it is out of date
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from rockfill.engine.machine import step
from rockfill.snapshots import Phase
from tests.unit.engine.lifecycle import STATES
from tests.unit.engine.test_machine import events

ARCHITECTURE = Path(__file__).parent.parent / "daemon" / "ARCHITECTURE.md"
BEGIN, END = "<!-- made by tests/state_diagram.py -->\n", "<!-- end -->"

# What comes to the same is told as one; what changes no phase, or is of every phase alike, is left out.
NAMES = {
    "ensure": "wanted",
    "submit": "wanted",
    "ensure other": "another wanted",
    "submit other": "another wanted",
    "run ended": "ended",
    "run failed": "ended",
    "link lost": "link lost",
    "nonsense": "link lost",
    "recycle": "grown",
}
LEFT_OUT = {"close"}


def diagram() -> str:
    """A Mermaid state diagram: every transition between two phases, with the events that make it."""
    labels: dict[tuple[Phase, Phase], set[str]] = defaultdict(set)
    for state in STATES.values():
        for kind, event in events(state).items():
            after, _ = step(state, event)
            if kind not in LEFT_OUT and after.phase is not state.phase:
                labels[state.phase, after.phase].add(NAMES.get(kind, kind))
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> stopped"]
    order = list(Phase)
    for before, after_phase in sorted(labels, key=lambda pair: (order.index(pair[0]), order.index(pair[1]))):
        lines.append(f"    {before} --> {after_phase}: {', '.join(sorted(labels[before, after_phase]))}")
    return "\n".join([*lines, "    closed --> [*]", "```", ""])


def written() -> str:
    """The diagram as it stands in ARCHITECTURE.md."""
    _, _, rest = ARCHITECTURE.read_text().partition(BEGIN)
    return rest.partition(END)[0]


if __name__ == "__main__":
    before, _, rest = ARCHITECTURE.read_text().partition(BEGIN)
    ARCHITECTURE.write_text(before + BEGIN + diagram() + END + rest.partition(END)[2])
