"""Downloads as processes of their own: killed, out of disk, cut off; whatever happens, what looks complete is."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.appliance import ROOT, environment
from tests.fakes.hub import FileSpec, HubServer
from tests.not_run import not_run

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MIB = 1 << 20
REPOSITORY = "user/Qwen2.5-Coder-0.5B-GGUF"
FILE = "qwen2.5-coder-0.5b-q8_0.gguf"
NAME = "qwen2.5-coder:0.5b"
FETCHER = [sys.executable, str(ROOT / "tests/fakes/fetcher.py")]


def offer(hub: HubServer, size_bytes: int) -> FileSpec:
    spec = FileSpec(size_bytes=size_bytes, start=7)
    hub.add(REPOSITORY, {FILE: spec, "LICENSE": FileSpec(text="Take it.\n", lfs=False)})
    return spec


def fetcher(state: Path, hub: HubServer, *more: str, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    command = [*launcher, *FETCHER, str(state), hub.url, REPOSITORY, *more]
    variables = {**environment(), "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}"}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = process.communicate(timeout=120)
    value: dict[str, Any] = json.loads(said.splitlines()[-1])
    return value


def models_in(state: Path) -> list[Path]:
    """Every directory that looks like a model."""
    return [path.parent for path in (state / "models").glob("*/manifest.json")]


def check_complete(state: Path, spec: FileSpec) -> None:
    [directory] = models_in(state)
    digest = hashlib.sha256((directory / FILE).read_bytes()).hexdigest()
    assert digest == spec.sha256()
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["files"][0]["sha256"] == digest
    assert {path.name for path in directory.iterdir()} == {FILE, "LICENSE", "manifest.json"}
    assert list((state / "models/.partial").iterdir()) == []


@pytest.mark.timeout(600)
def test_killed_at_fifty_random_moments_it_ends_with_the_right_bytes(hub: HubServer, tmp_path: Path) -> None:
    kills, sync_bytes = 50, MIB
    spec = offer(hub, 64 * MIB)
    hub.slow_down(12 * MIB)
    moments = random.Random(6)
    state = tmp_path / "state"
    begun = 0
    for _ in range(kills):
        with fetcher(state, hub, str(sync_bytes)) as process:
            # Up to a second of it is Python itself; the rest of the moments lie before, in and between the writes.
            time.sleep(moments.uniform(0.1, 1.0))
            begun += process.poll() is None
            process.kill()
        for directory in models_in(state):  # it may have been done already
            assert hashlib.sha256((directory / FILE).read_bytes()).hexdigest() == spec.sha256()
    hub.slow_down(0)
    assert outcome(fetcher(state, hub, str(sync_bytes)))["state"] in ("done", "here")
    check_complete(state, spec)
    fetched = hub.sent_bytes(FILE)
    print(f"{begun} of {kills} were killed under way; {fetched / spec.length:.2f} times the file was fetched")
    in_flight_bytes = 256 << 10
    assert fetched <= 1.05 * spec.length + kills * (sync_bytes + in_flight_bytes)


# ---- the disk. A mount of our own, which only the process under test sees.


def in_mount(mount: str, inner: str) -> list[str]:
    """A launcher that makes `mount` first, then `inner`, in a mount namespace of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    launcher = ["unshare", *user, "--mount", "--propagation", "private"]
    probe = subprocess.run([*launcher, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    if probe.returncode != 0:
        not_run("mount namespaces", probe.stderr.strip())
    return [*launcher, "sh", "-c", f'set -e; {mount}; {inner}; exec "$@"', "sh"]


def test_a_disk_that_fills_up_midway_is_told_and_what_came_is_used_again(hub: HubServer, tmp_path: Path) -> None:
    spec = offer(hub, 24 * MIB)
    hub.fail("hold", path=FILE, after_bytes=4 * MIB, times=0)
    state, kept = tmp_path / "state", tmp_path / "kept"
    state.mkdir()
    kept.mkdir()
    # Something else takes the room while the fetch is under way; nobody can see that beforehand.
    begun = f"find {state}/models -name '*.part' -size +2M | grep -q ."
    fill = f"head -c 590M /dev/zero > {state}/hog; touch {kept}/full"
    hog = f"(until {begun}; do sleep 0.05; done; {fill}) 2>/dev/null &"
    launcher = in_mount(f"mount -t tmpfs -o size=600m none {state}", f"mkdir {state}/models; {hog} true")
    twice = ["sh", "-c", f'"$@"; rm {state}/hog; "$@"; cp -r {state}/. {kept}', "sh"]
    process = fetcher(state, hub, str(MIB), launcher=[*launcher, *twice])
    while not (kept / "full").exists() and process.poll() is None:
        time.sleep(0.01)
    (kept / "full").unlink()
    hub.slow_down(3 * MIB)  # so that little is under way when the disk is full
    hub.heal()
    said, _ = process.communicate(timeout=120)
    first, second = map(json.loads, said.splitlines())
    assert (first["state"], first["problem"]["code"]) == ("failed", "disk_full")
    assert "Make room" in first["problem"]["advice"]
    assert 0 < first["done_bytes"] < spec.length
    assert second["state"] == "done"
    check_complete(kept, spec)
    assert hub.sent_bytes(FILE) <= spec.length + 4 * MIB  # what was not recorded, and what was under way


def test_too_little_room_is_told_before_the_first_byte(hub: HubServer, tmp_path: Path) -> None:
    offer(hub, 24 * MIB)
    state = tmp_path / "state"
    state.mkdir()
    launcher = in_mount(f"mount -t tmpfs -o size=520m none {state}", "true")
    said = outcome(fetcher(state, hub, launcher=launcher))
    assert said["problem"]["code"] == "disk_full"
    assert said["problem"]["detail"]["needed_bytes"] > said["problem"]["detail"]["room_bytes"]
    assert hub.sent_bytes(FILE) == 0


def test_a_state_directory_that_is_read_only_is_told(hub: HubServer, tmp_path: Path) -> None:
    offer(hub, MIB)
    state = tmp_path / "state"
    state.mkdir()
    (state / "lock").touch()
    launcher = in_mount(f"mount -t tmpfs none {state}", f"mkdir {state}/models; mount -o remount,ro {state}")
    said = outcome(fetcher(state, hub, launcher=launcher))
    assert said["problem"]["code"] == "state_dir_unusable"
    assert "Read-only" in said["problem"]["message"]
    assert hub.sent_bytes(FILE) == 0


def test_a_models_directory_that_is_read_only_is_told(hub: HubServer, tmp_path: Path) -> None:
    offer(hub, MIB)
    state = tmp_path / "state"
    (state / "models").mkdir(parents=True)
    launcher = in_mount(f"mount -t tmpfs -o ro none {state}/models", "true")
    said = outcome(fetcher(state, hub, launcher=launcher))
    assert said["problem"]["code"] in ("state_dir_unusable", "disk_full")
    assert hub.sent_bytes(FILE) == 0


# ---- the network


def test_a_hub_that_vanishes_midway_is_told_and_the_part_is_used_by_the_next(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with HubServer() as first:
        offer(first, 16 * MIB)
        first.fail("hold", path=FILE, after_bytes=4 * MIB, times=0)
        process = fetcher(state, first, str(MIB))
        while not any(path.stat().st_size > 2 * MIB for path in (state / "models").glob(".partial/*/*.part")):
            time.sleep(0.01)
        first.stop()
        said = outcome(process)
    assert said["problem"]["code"] == "hub_unreachable"
    assert said["retry_in_s"] > 0
    assert models_in(state) == []
