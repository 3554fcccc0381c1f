"""Against a real server that misbehaves: the right bytes or a clear error, and what came is kept unless it is wrong."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from rockfill.errors import Code, Problem
from rockfill.hub import transfer
from rockfill.hub.transfer import Content, Limit, Patience, Transfer
from tests.fakes.hub import COMMIT, FileSpec, HubServer

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
REPOSITORY = "user/model-rk3588-1.1.2"
FILE = "model.rkllm"
SPEC = FileSpec(size_bytes=3 * MIB + 123, start=99)
RIGHT = Content(SPEC.length, SPEC.sha256())
MOST_HELD_BYTES = MIB  # see transfer.BUFFER_BYTES
QUICK = Patience(attempts=4, first_pause_s=0.001, longest_pause_s=0.01)
# Of a server that is to be taken for silent only once it is: a busy machine answers late.
IMPATIENT = replace(QUICK, silence_s=1)


async def fetch(
    hub: HubServer,
    target: Path,
    content: Content = RIGHT,
    *,
    token: str | None = None,
    patience: Patience = QUICK,
    file: str = FILE,
    sync_bytes: int = MIB,
) -> None:
    address = f"{hub.url}/{REPOSITORY}/resolve/{COMMIT}/{file}"
    async with Transfer(hub.url, lambda: token, patience=patience, sync_bytes=sync_bytes) as way:
        await way.fetch(address, target, content)


@pytest.fixture
def target(tmp_path: Path, hub: HubServer) -> Path:
    hub.add(REPOSITORY, {FILE: SPEC, "config.json": FileSpec(text='{"a": 1}', lfs=False)})
    return tmp_path / FILE


def is_right(target: Path, content: Content = RIGHT) -> bool:
    return hashlib.sha256(target.read_bytes()).hexdigest() == content.sha256


def names(target: Path) -> set[str]:
    return {path.name for path in target.parent.iterdir()}


async def refused(code: Code, hub: HubServer, target: Path, **settings: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        await fetch(hub, target, **settings)
    assert caught.value.code is code, caught.value
    assert caught.value.advice
    assert FILE not in names(target)
    return caught.value


async def test_a_file_comes_whole_and_leaves_nothing_beside_it(hub: HubServer, target: Path) -> None:
    await fetch(hub, target)
    assert is_right(target)
    assert names(target) == {FILE}
    assert hub.sent_bytes() == SPEC.length


async def test_a_file_without_lfs_is_verified_by_gits_id(hub: HubServer, target: Path) -> None:
    spec = FileSpec(text='{"a": 1}', lfs=False)
    place = target.with_name("config.json")
    await fetch(hub, place, Content(spec.length, None, spec.blob_id()), file="config.json")
    assert place.read_text() == spec.text
    wrong = Content(spec.length, None, FileSpec(text="{}").blob_id())
    place.unlink()
    await refused(Code.DOWNLOAD_CORRUPT, hub, place, content=wrong, file="config.json")


async def test_the_token_is_for_the_hub_alone(hub: HubServer, target: Path) -> None:
    hub.fail("close", after_bytes=MIB)
    await fetch(hub, target, token="hf_secret")
    told = {(entry["where"], entry["authorization"]) for entry in hub.log}
    assert told == {("hub", "Bearer hf_secret"), ("files", None)}
    assert [entry["where"] for entry in hub.log].count("files") == 2


@pytest.mark.parametrize("what", ["close", "reset", "stall"])
@pytest.mark.parametrize("after_bytes", [0, 1, MIB + 5, SPEC.length - 1])
async def test_a_connection_that_ends_early_is_gone_on_with(
    hub: HubServer, target: Path, what: str, after_bytes: int
) -> None:
    hub.fail(what, after_bytes=after_bytes)
    await fetch(hub, target, patience=IMPATIENT if what == "stall" else QUICK)
    assert is_right(target)
    assert names(target) == {FILE}
    # A reset may take with it all that was sent and not read, an end what the HTTP library held.
    lost = {"close": MOST_HELD_BYTES, "reset": after_bytes, "stall": 0}[what]
    assert hub.sent_bytes() <= SPEC.length + lost


async def test_one_that_ends_again_and_again_is_given_up_and_what_came_is_kept(hub: HubServer, target: Path) -> None:
    hub.fail("close", after_bytes=MIB)
    hub.fail("close", times=0)
    problem = await refused(Code.HUB_UNREACHABLE, hub, target)
    assert "ended early" in problem.message
    assert names(target) == {f"{FILE}.part", f"{FILE}.part.json"}
    hub.heal()
    hub.forget()
    await fetch(hub, target)
    assert is_right(target)
    assert SPEC.length - MIB <= hub.sent_bytes() <= SPEC.length - MIB + MOST_HELD_BYTES


@pytest.mark.parametrize(
    "fault",
    [
        {"what": "expired"},
        {"what": "status", "status": 500},
        {"what": "status", "status": 503, "where": "hub"},
        {"what": "status", "status": 429, "retry_after": "0"},
        {"what": "status", "status": 429, "where": "hub", "retry_after": "1"},
        {"what": "status", "status": 404},
        {"what": "packed"},
    ],
    ids=lambda fault: "-".join(map(str, fault.values())),
)
async def test_what_passes_is_waited_for(hub: HubServer, target: Path, fault: dict[str, Any]) -> None:
    hub.fail("close", after_bytes=2 * MIB)
    hub.fail(**fault)
    await fetch(hub, target)
    assert is_right(target)
    assert hub.sent_bytes() <= SPEC.length + MOST_HELD_BYTES + SPEC.length * (fault["what"] == "packed")


async def test_an_expired_signature_is_asked_for_again_at_the_hub(hub: HubServer, target: Path) -> None:
    hub.fail("expired", times=2)
    await fetch(hub, target)
    signatures = [entry["query"] for entry in hub.log if entry["where"] == "files"]
    assert len(set(signatures)) == 3


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"what": "status", "status": 500, "times": 0}, Code.HUB_FAILED),
        ({"what": "status", "status": 429, "times": 0, "retry_after": "0"}, Code.HUB_RATE_LIMITED),
        ({"what": "status", "status": 429, "times": 0, "retry_after": "86400"}, Code.HUB_RATE_LIMITED),
        ({"what": "expired", "times": 0}, Code.HUB_FAILED),
        ({"what": "status", "status": 401, "where": "hub"}, Code.UNAUTHORIZED),
        ({"what": "status", "status": 404, "where": "hub"}, Code.VARIANT_NOT_FOUND),
        ({"what": "status", "status": 403, "where": "hub", "error_code": "GatedRepo"}, Code.HUB_GATED),
        ({"what": "status", "status": 400, "where": "hub"}, Code.HUB_FAILED),
        ({"what": "stall", "times": 0}, Code.HUB_UNREACHABLE),
        ({"what": "packed", "times": 0}, Code.HUB_FAILED),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
async def test_what_does_not_pass_is_told(hub: HubServer, target: Path, fault: dict[str, Any], code: Code) -> None:
    hub.fail(**fault)
    stalls = fault["what"] == "stall"
    await refused(code, hub, target, patience=replace(QUICK, silence_s=0.1) if stalls else QUICK)


async def test_a_server_without_ranges_begins_anew_and_we_do_not(hub: HubServer, target: Path) -> None:
    hub.fail("close", after_bytes=2 * MIB)
    hub.fail("no_range", times=0)
    await fetch(hub, target)
    assert is_right(target)


async def test_the_wrong_range_is_not_written(hub: HubServer, target: Path) -> None:
    hub.fail("close", after_bytes=MIB)
    hub.fail("wrong_range")
    await fetch(hub, target)
    assert is_right(target)


async def test_another_length_than_told_is_another_file(hub: HubServer, target: Path) -> None:
    hub.fail("close", after_bytes=MIB)
    hub.fail("short_total")
    await refused(Code.DOWNLOAD_CORRUPT, hub, target)
    hub.fail("long")
    await refused(Code.DOWNLOAD_CORRUPT, hub, target)


@pytest.mark.parametrize("at", [0, MIB, SPEC.length - 1])
async def test_wrong_bytes_are_found_and_thrown_away(hub: HubServer, target: Path, at: int) -> None:
    hub.fail("garbage", after_bytes=at)
    problem = await refused(Code.DOWNLOAD_CORRUPT, hub, target)
    assert problem.detail["expected"] == RIGHT.sha256
    hub.forget()
    await fetch(hub, target)
    assert is_right(target)
    assert hub.sent_bytes() == SPEC.length, "nothing of what was wrong was used"


async def test_a_file_that_is_changed_midway_is_noticed_before_more_of_it_comes(hub: HubServer, target: Path) -> None:
    hub.fail("close", after_bytes=MIB)
    hub.fail("status", status=500, times=0)
    await refused(Code.HUB_FAILED, hub, target)
    hub.heal()
    hub.forget()
    changed = replace(SPEC, start=1000)
    hub.add(REPOSITORY, {FILE: changed})
    problem = await refused(Code.DOWNLOAD_CORRUPT, hub, target)
    assert "changed" in problem.message
    assert hub.sent_bytes() == 0
    # Once the Hub has said what it is now, nothing of the old part is used.
    await fetch(hub, target, Content(changed.length, changed.sha256()))
    assert is_right(target, Content(changed.length, changed.sha256()))
    assert hub.sent_bytes() == SPEC.length


async def test_without_the_hubs_word_the_digest_still_tells(hub: HubServer, target: Path) -> None:
    await refused(Code.DOWNLOAD_CORRUPT, hub, target, content=replace(RIGHT, sha256="0" * 64))
    assert names(target) <= {f"{FILE}.part"}


# ---- what an earlier run left


def leave(target: Path, data: bytes, **record: Any) -> None:
    target.with_name(f"{FILE}.part").write_bytes(data)
    known = {"key": RIGHT.sha256, "size_bytes": SPEC.length, "synced_bytes": 2 * MIB}
    target.with_name(f"{FILE}.part.json").write_text(json.dumps({**known, **record}))


def beginning(size_bytes: int) -> bytes:
    return b"".join(SPEC.pieces())[:size_bytes]


async def test_a_tail_of_zeros_is_not_believed(hub: HubServer, target: Path) -> None:
    leave(target, beginning(2 * MIB) + bytes(MIB))
    await fetch(hub, target)
    assert is_right(target)
    assert hub.sent_bytes() == SPEC.length - 2 * MIB


@pytest.mark.parametrize(
    ("data", "record", "sent_bytes"),
    [
        (beginning(MIB), {}, SPEC.length - MIB),  # shorter than it was recorded to be
        (b"", {}, SPEC.length),
        (beginning(2 * MIB), {"key": "0" * 64}, SPEC.length),  # of something else
        (beginning(2 * MIB), {"size_bytes": SPEC.length + 1}, SPEC.length),
        (beginning(2 * MIB), {"synced_bytes": -1}, SPEC.length),
        (beginning(2 * MIB), {"synced_bytes": SPEC.length * 2}, SPEC.length),
        (beginning(2 * MIB), {"synced_bytes": "many"}, SPEC.length),
        (beginning(SPEC.length), {"synced_bytes": SPEC.length}, 0),  # killed just before it got its name
    ],
)
async def test_a_part_is_used_as_far_as_its_record_goes(
    hub: HubServer, target: Path, data: bytes, record: dict[str, Any], sent_bytes: int
) -> None:
    leave(target, data, **record)
    await fetch(hub, target)
    assert is_right(target)
    assert hub.sent_bytes() == sent_bytes


async def test_a_part_that_was_spoilt_on_the_disk_is_found_out(hub: HubServer, target: Path) -> None:
    leave(target, bytes(2 * MIB))
    await refused(Code.DOWNLOAD_CORRUPT, hub, target)
    await fetch(hub, target)
    assert is_right(target)


async def test_a_record_that_is_none_is_no_record(hub: HubServer, target: Path) -> None:
    leave(target, beginning(2 * MIB))
    target.with_name(f"{FILE}.part.json").write_bytes(b"\0" * 100)
    await fetch(hub, target)
    assert is_right(target)


@pytest.mark.parametrize("name", [f"{FILE}.part", FILE])
async def test_a_link_in_its_place_is_not_followed(hub: HubServer, target: Path, tmp_path: Path, name: str) -> None:
    other = tmp_path / "elsewhere"
    other.write_text("mine")
    target.with_name(name).symlink_to(other)
    if name == FILE:
        await fetch(hub, target)
    else:
        with pytest.raises(Problem) as caught:
            await fetch(hub, target)
        assert caught.value.code is Code.STATE_DIR_UNUSABLE
    assert other.read_text() == "mine"
    assert name != FILE or is_right(target)


def wait_for_bytes(path: Path, size_bytes: int) -> None:
    while not path.exists() or path.stat().st_size < size_bytes:
        time.sleep(0.005)


async def test_cancelling_keeps_all_that_came(hub: HubServer, target: Path) -> None:
    hub.fail("stall", after_bytes=2 * MIB)
    fetching = asyncio.create_task(fetch(hub, target))
    part = target.with_name(f"{FILE}.part")
    await asyncio.to_thread(wait_for_bytes, part, MIB)
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    kept = part.stat().st_size
    assert kept >= MIB
    hub.forget()
    await fetch(hub, target)
    assert is_right(target)
    assert hub.sent_bytes() == SPEC.length - kept


async def test_cancelling_while_the_part_is_hashed_leaves_it_and_nothing_open(
    hub: HubServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(target, beginning(2 * MIB))
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 1)  # two million steps
    fetching = asyncio.create_task(fetch(hub, target))
    await asyncio.sleep(0.2)
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    monkeypatch.undo()
    assert hub.log == []
    await fetch(hub, target)
    assert is_right(target)
    assert hub.sent_bytes() == SPEC.length - 2 * MIB


async def test_an_answer_that_ends_early_and_in_order_is_no_end(hub: HubServer, target: Path) -> None:
    hub.fail("short")
    await fetch(hub, target)
    assert is_right(target)
    hub.fail("short", times=0)
    other = target.with_name("other")
    with pytest.raises(Problem) as caught:
        await fetch(hub, other)
    assert caught.value.code is Code.HUB_UNREACHABLE


async def test_a_clock_that_jumps_changes_nothing(
    hub: HubServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.fail("close", after_bytes=MIB)
    jumps = iter(range(10**6))
    monkeypatch.setattr(time, "time", lambda: 1e9 + (-1) ** next(jumps) * 1e9)
    await fetch(hub, target)
    monkeypatch.undo()
    assert is_right(target)


# ---- no network


@pytest.mark.parametrize("host", ["no-such-host.invalid:1", "127.0.0.1:1"])
async def test_a_hub_that_is_not_there_is_told_with_the_reason(target: Path, host: str) -> None:
    async with Transfer(f"http://{host}", patience=QUICK) as way:
        with pytest.raises(Problem) as caught:
            await way.fetch(f"http://{host}/a/b/resolve/c/d", target, RIGHT)
    assert caught.value.code is Code.HUB_UNREACHABLE
    assert host.partition(":")[0] in caught.value.message
    assert "proxy" in caught.value.advice


@pytest.mark.parametrize(
    ("at", "location", "where"),
    [
        ("https://hub/a/b", "https://files.example/x", "https://files.example/x"),
        ("https://hub/a/b", "/c?d=%2F", "https://hub/c?d=%2F"),
        ("http://hub/a", "http://files.example/x", "http://files.example/x"),
        ("http://hub/a", "https://files.example/x", "https://files.example/x"),
        ("https://hub/a", "http://files.example/x", None),
        ("https://hub/a", "file:///etc/passwd", None),
        ("https://hub/a", "ftp://x/y", None),
        ("https://hub/a", "", None),
        ("https://hub/a", "https://[", None),
    ],
)
def test_redirects_go_to_safe_addresses_only(at: str, location: str, where: str | None) -> None:
    response: Any = SimpleNamespace(headers={"Location": location})
    if where is not None:
        assert str(transfer._redirected(URL(at), response)) == where
        return
    with pytest.raises(Problem) as caught:
        transfer._redirected(URL(at), response)
    assert caught.value.code is Code.HUB_FAILED


async def test_a_limit_spreads_what_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: 1000.0)  # no time passes meanwhile
    limit = Limit(1000.0)
    for _ in range(3):
        await limit.pass_(500)
    assert slept == pytest.approx([0.5, 1.0, 1.5])
    slept.clear()
    await Limit(0).pass_(10**9)
    assert slept == []
