"""Measures a model by `rockfill eval infill`, in a daemon of its own: on the tasks, and on what is held out.

Run by a Python that has Rockfill. What it writes is what Rockfill shows of a model that lies beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROCKFILL = (sys.executable, "-m", "rockfill")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="the GGUF file")
    parser.add_argument("--manifest", type=Path, required=True, help="the manifest that it is installed with")
    parser.add_argument("--tasks", required=True, help="HumanEval-infilling's JSON lines")
    parser.add_argument("--held-out", type=Path, required=True, help="JSON lines of what is held out")
    parser.add_argument("--limit", type=int, help="at most so many tasks, and places in what is held out (else 1000)")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, held_out = Path(folder, "model"), Path(folder, arguments.held_out.stem)
        model.mkdir()
        manifest = arguments.manifest.read_text()
        (model / "manifest.json").write_text(manifest)
        (model / json.loads(manifest)["file"]).symlink_to(arguments.model.absolute())
        for line in arguments.held_out.open():
            document = json.loads(line)
            path = held_out / document["source"] / document["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(document["text"])
        tasks_limit = ("--limit", str(arguments.limit)) if arguments.limit else ()
        with _serving(model, Path(folder, "state")) as daemon:
            evaluations = [
                *_infill(daemon, "--tasks", arguments.tasks, *tasks_limit),
                *_infill(daemon, str(held_out), "--limit", str(arguments.limit or 1000)),
            ]
    arguments.out.write_text(json.dumps({"evaluations": evaluations}, indent=1) + "\n")


@contextmanager
def _serving(model: Path, state: Path) -> Iterator[tuple[str, ...]]:
    """A daemon that runs the model; how a command reaches it."""
    command = (*ROCKFILL, "serve", "--listen", "127.0.0.1:0", "--model", str(model), "--state-dir", str(state))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        try:
            assert daemon.stdout is not None
            address = next(line for line in daemon.stdout if line.startswith("http://"))
            yield "--url", address.partition("#")[0].strip(), "--state-dir", str(state)
        finally:
            daemon.terminate()


def _infill(daemon: tuple[str, ...], *what: str) -> list[dict[str, Any]]:
    said = subprocess.run(
        (*ROCKFILL, "eval", "infill", *what, "--json", *daemon), check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    evaluations: list[dict[str, Any]] = json.loads(said)["evaluations"]
    for result in evaluations:
        print(result["evaluation"]["questions"], *map(json.dumps, result["evaluation"]["scores"]), sep="\n  ")
    return evaluations


if __name__ == "__main__":
    main()
