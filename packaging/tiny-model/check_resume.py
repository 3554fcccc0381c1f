"""Sees that training which is killed goes on to the same weights: kills a run in the middle, starts it again, and
compares what it writes with what a run that nobody disturbed does. Exits with 1 unless all weights are equal.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from export import weights_of

TRAIN = Path(__file__).with_name("train.py")
# A minute on one processor.
SHAPE = '{"width": 64, "layers": 2, "heads": 2, "kv_heads": 1, "head_width": 32, "ffn_width": 128, "context": 256}'
RUN = (
    *("--shape", SHAPE, "--tokens", "1.5e5", "--batch-rows", "16", "--producers", "2"),
    *("--save-every", "1", "--validate-every", "600"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="JSON lines of the corpus")
    parser.add_argument("--held-out", required=True, help="JSON lines of what is held out")
    parser.add_argument("--tokenizer", required=True)
    arguments = parser.parse_args()
    files = ("--corpus", arguments.corpus, "--held-out", arguments.held_out, "--tokenizer", arguments.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        commands = {
            out: (sys.executable, str(TRAIN), *files, *RUN, "--out", str(out), "--checkpoint", f"{out}/checkpoint.pt")
            for out in (whole, killed)
        }
        subprocess.run(commands[whole], check=True)
        _kill_in_the_middle(commands[killed], killed)
        subprocess.run(commands[killed], check=True)
        weights = weights_of(whole), weights_of(killed)
    different = [name for name, values in weights[0].items() if not (values == weights[1][name]).all()]
    if different or not weights[0]:
        sys.exit(f"Different: {', '.join(different) or 'nothing was written'}.")
    print(f"all {len(weights[0])} weights are equal")


def _kill_in_the_middle(command: tuple[str, ...], out: Path) -> None:
    process = subprocess.Popen(command)
    log, checkpoint = out / "log.jsonl", out / "checkpoint.pt"
    while not (checkpoint.exists() and log.read_text().count("\n") > 1):  # a first line, and one at the tenth step
        if process.poll() is not None:
            sys.exit("Training ended before it could be killed.")
        time.sleep(0.02)
    producers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    time.sleep(1)
    left = [pid for pid in producers if _runs(pid)]
    if left or not producers or (out / "weights.json").exists():
        sys.exit(f"Left by the killed run: processes {left or 'unknown'}, or weights.")
    print("killed", flush=True)


def _runs(pid: str) -> bool:
    """Whether a process is there and more than the entry of one whose end nobody has asked for yet."""
    try:
        return "\nState:\tZ" not in Path("/proc", pid, "status").read_text()
    except OSError:
        return False


if __name__ == "__main__":
    main()
