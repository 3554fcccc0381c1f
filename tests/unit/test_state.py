from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from rockfill import state as state_module
from rockfill.errors import Code, Problem
from rockfill.state import STATE_VERSION, Choices, StateDir, read_address, read_token
from tests.engines import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    with StateDir.acquire(tmp_path / "state") as acquired:
        yield acquired


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def files(path: Path) -> set[str]:
    return {entry.name for entry in path.iterdir()}


# ---- the lock

ACQUIRE = """
import sys
from pathlib import Path
from rockfill.errors import Problem
from rockfill.state import StateDir
try:
    with StateDir.acquire(Path(sys.argv[1])):
        print("acquired", flush=True)
        sys.stdin.read()
except Problem as problem:
    print(problem.code, problem.message, flush=True)
"""


def other_process(path: Path) -> subprocess.Popen[str]:
    """A process that acquires `path`, says how that went, and lets go when its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", ACQUIRE, str(path)],
        env=ENVIRONMENT,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def test_a_second_process_is_refused_and_told_who_is_first(state: StateDir) -> None:
    said, _ = other_process(state.path).communicate()
    assert said.startswith(Code.ALREADY_RUNNING)
    assert f"(process {os.getpid()})" in said


@pytest.mark.parametrize("way", ["let go", "killed"])
def test_a_lock_ends_with_its_holder_however_that_ends(tmp_path: Path, way: str) -> None:
    with other_process(tmp_path) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "acquired\n"
        with pytest.raises(Problem) as caught:
            StateDir.acquire(tmp_path)
        assert caught.value.code is Code.ALREADY_RUNNING
        assert str(other.pid) in caught.value.message
        if way == "killed":
            other.kill()
        other.communicate()
    with StateDir.acquire(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_worker_does_not_inherit_the_lock(state: StateDir) -> None:
    """Else one that outlives us for a moment would keep our successor out."""
    assert not os.get_inheritable(state._lock_fd)


def test_the_directory_is_made_for_its_owner_alone(state: StateDir) -> None:
    assert mode(state.path) == 0o700
    assert mode(state.path / "lock") == 0o600


# ---- a directory that is none


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    for path in (tmp_path / "state", tmp_path / "state" / "below"):
        with pytest.raises(Problem) as caught:
            StateDir.acquire(path)
        assert caught.value.code is Code.STATE_DIR_UNUSABLE
        assert str(path) in caught.value.message


def test_a_directory_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    """In a child without privileges: root may write anywhere."""
    tmp_path.chmod(0o555)
    unprivileged = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all")
    command = [*(unprivileged if os.geteuid() == 0 else ()), sys.executable, "-c", ACQUIRE, str(tmp_path)]
    for ancestor in (tmp_path.parent, tmp_path.parent.parent):
        ancestor.chmod(ancestor.stat().st_mode | 0o055)
    said = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert said.stdout.startswith(Code.STATE_DIR_UNUSABLE), said.stderr
    assert "Permission denied" in said.stdout


# ---- the token


def test_the_token_is_made_once_and_stays(state: StateDir) -> None:
    token = state.token()
    assert len(token) >= 32
    assert state.token() == token == read_token(state.path)
    assert mode(state.path / "token") == 0o600


def test_an_empty_token_is_none(state: StateDir) -> None:
    (state.path / "token").write_text("\n")
    assert read_token(state.path) is None
    assert state.token()


def test_there_is_no_token_before_the_first_start(tmp_path: Path) -> None:
    assert read_token(tmp_path) is None
    assert read_token(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", [b"caf\xc3\xa9", None])
def test_a_token_that_can_not_be_read_is_told_as_such(state: StateDir, content: bytes | None) -> None:
    if content is None:
        (state.path / "token").mkdir()
    else:
        (state.path / "token").write_bytes(content)
    with pytest.raises(Problem) as caught:
        read_token(state.path)
    assert caught.value.code is Code.FILE_UNREADABLE


# ---- what people chose


def test_choices_are_kept(state: StateDir) -> None:
    assert state.choices() == Choices()
    state.choose(Choices(model="one"))
    state.choose(Choices(model="two"))
    assert state.choices() == Choices(model="two")
    assert files(state.path) == {"lock", "state.json"}
    assert mode(state.path / "state.json") == 0o600


def test_a_write_that_fails_leaves_what_was(state: StateDir) -> None:
    state.choose(Choices(model="old"))
    (state.path / ".state.json.new").mkdir()  # stands where the new file is to be written
    with pytest.raises(Problem) as caught:
        state.choose(Choices(model="new"))
    assert caught.value.code is Code.STATE_DIR_UNUSABLE
    assert state.choices() == Choices(model="old")


def test_a_disk_that_is_full_leaves_what_was_and_no_litter(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk, in a child of its own."""
    script = """
import resource, signal, sys
from pathlib import Path
from rockfill.errors import Problem
from rockfill.state import Choices, StateDir
with StateDir.acquire(Path(sys.argv[1])) as state:
    state.choose(Choices(model="old"))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    try:
        state.choose(Choices(model="new" * 1000))
    except Problem as problem:
        print(problem.code, state.choices().model)
"""
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert said.stdout == "state_dir_unusable old\n"
    assert files(tmp_path) == {"lock", "state.json"}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"model": 3}', b"[" * 100_000])
def test_a_broken_file_is_set_aside_and_forgotten(state: StateDir, content: bytes) -> None:
    (state.path / "state.json").write_bytes(content)
    assert state.choices() == Choices()
    assert (state.path / "state.json.broken").read_bytes() == content
    state.choose(Choices(model="new"))
    assert state.choices() == Choices(model="new")
    assert (state.path / "state.json.broken").read_bytes() == content


@pytest.mark.parametrize("model", [None, "name", {"name": "of a shape that is not known here"}])
def test_the_file_of_a_newer_version_is_refused_and_left_alone(state: StateDir, model: object) -> None:
    content = json.dumps({"version": STATE_VERSION + 1, "model": model})
    (state.path / "state.json").write_text(content)
    with pytest.raises(Problem) as caught:
        state.choices()
    assert caught.value.code is Code.STATE_TOO_NEW
    assert "newer" in caught.value.message
    assert (state.path / "state.json").read_text() == content


# ---- what is only remembered


def test_selftests_and_history_are_kept(state: StateDir) -> None:
    state.keep_selftest("one", {"a": 1})
    state.keep_selftest("two", {"b": 2})
    state.keep_history(lambda: [{"time_s": 1.5}])
    assert state.selftests() == {"one": {"a": 1}, "two": {"b": 2}}
    again = StateDir(state.path, -1)
    assert again.selftests() == {"one": {"a": 1}, "two": {"b": 2}}
    assert again.history() == [{"time_s": 1.5}]


@pytest.mark.parametrize("content", [b"", b"null", b"3", b"\xff", b"[" * 100_000])
def test_broken_memories_are_none(state: StateDir, content: bytes) -> None:
    (state.path / "selftests.json").write_bytes(content)
    (state.path / "history.json").write_bytes(content)
    assert state.selftests() == {}
    assert state.history() == []


def test_whoever_reads_the_hubs_token_while_it_is_stored_has_the_new_one_after(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.keep_hub_token("old")
    write = state_module._write_atomically

    def read_first(path: Path, content: bytes) -> None:
        state.hub_token()
        write(path, content)

    monkeypatch.setattr(state_module, "_write_atomically", read_first)
    state.keep_hub_token("new")
    assert state.hub_token() == "new"


# ---- several at once


@pytest.mark.parametrize("what", ["tokens", "history", "evaluations"])
def test_who_writes_last_writes_the_newest(state: StateDir, what: str) -> None:
    """The first one asks what to write, and then is kept waiting until the second one would have written."""
    keep, read = getattr(state, f"keep_{what}"), getattr(state, what)
    present, asked, go_on = ["old"], threading.Event(), threading.Event()

    def slowly() -> list[str]:
        found = list(present)
        asked.set()
        go_on.wait()
        return found

    first = threading.Thread(target=keep, args=(slowly,))
    first.start()
    asked.wait()
    present.append("new")
    second = threading.Thread(target=keep, args=(lambda: list(present),))
    second.start()
    second.join(0.1)
    go_on.set()
    for thread in (first, second):
        thread.join()
    assert read() == ["old", "new"]


def test_two_selftests_that_end_together_are_both_kept(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write, writing, go_on = state_module._write_atomically, threading.Event(), threading.Event()

    def slowly(path: Path, content: bytes) -> None:
        writing.set()
        go_on.wait()
        write(path, content)

    monkeypatch.setattr(state_module, "_write_atomically", slowly)
    threads = [threading.Thread(target=state.keep_selftest, args=(name, {})) for name in ("one", "two")]
    threads[0].start()
    writing.wait()
    threads[1].start()
    threads[1].join(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert StateDir(state.path, -1).selftests() == state.selftests() == {"one": {}, "two": {}}


def test_who_looks_while_the_address_is_announced_finds_the_holder(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def looking(call: Callable[..., int | None]) -> Callable[..., int | None]:
        def looks(*arguments: Any) -> int | None:
            done = call(*arguments)
            seen.append((state.path / "lock").read_text().partition("\n")[0])
            return done

        return looks

    for name in ("ftruncate", "pwrite"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))
    state.announce("http://127.0.0.1:8012")
    assert set(seen) == {str(os.getpid())}
    assert read_address(state.path) == "http://127.0.0.1:8012"
