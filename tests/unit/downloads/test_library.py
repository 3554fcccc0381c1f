"""Models from the stand-in Hub into a state directory, with the services as the daemon has them."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from rockfill.compat.verdict import BoardFacts
from rockfill.downloads import jobs
from rockfill.downloads.importing import Import, Importable, bring_in, importable
from rockfill.downloads.models import Request
from rockfill.errors import Code, Problem
from rockfill.state import Wanted
from rockfill.store.models import manifest_of
from rockfill.store.shelf import Shelf
from tests.fakes.hub import FileSpec

if TYPE_CHECKING:
    from pathlib import Path

    from rockfill.bus import Event
    from tests.fakes.hub import HubServer
    from tests.unit.downloads.conftest import Place

CODEGEMMA = "c01zaut/codegemma-2b-rk3588-1.1.2"
GGUF = "ggml-org/Qwen2.5-Coder-1.5B-Q8_0-GGUF"
TOKENIZER = FileSpec(text='{"model": 1}', lfs=False)
CPU = BoardFacts("", 8 * 10**9, None)


def weights(quantisation: str = "w8a8", optimisation: int = 1) -> str:
    return f"codegemma-2b-rk3588-{quantisation}-opt-{optimisation}-hybrid-ratio-0.5.rkllm"


@pytest.fixture
def offered(hub: HubServer) -> None:
    files = {weights(): FileSpec(size_bytes=5000), weights("w8a8_g128", 0): FileSpec(size_bytes=5001)}
    others = {"tokenizer.json": TOKENIZER, "config.json": FileSpec(text="{}", lfs=False)}
    others |= {"README.md": FileSpec(text="# x", lfs=False), "model.safetensors.index.json": TOKENIZER}
    hub.add(CODEGEMMA, {**files, **others}, licence="gemma")
    hub.add(GGUF, {"qwen2.5-coder-1.5b-q8_0.gguf": FileSpec(size_bytes=3000)})


pytestmark = pytest.mark.usefixtures("offered")


async def refusal(place: Place, request: Request) -> Problem:
    with pytest.raises(Problem) as caught:
        await place.library.pull(request)
    assert place.downloads.jobs == ()
    return caught.value


# ---- fetching


async def test_a_variant_comes_with_its_tokenizer_and_says_in_its_manifest_what_it_is(place: Place) -> None:
    pulled = await place.library.pull(Request("codegemma:2b", accept_licence=True))
    assert (pulled.name, pulled.warnings) == ("codegemma:2b", ())
    assert pulled.job is not None
    assert pulled.job.total_bytes == 5000 + len(TOKENIZER.text or "") + 2
    jobs = await place.work()
    assert jobs["codegemma-2b"].state == "done"
    target = place.models.find("codegemma:2b")
    directory = place.state.path / "models/codegemma-2b"
    assert {path.name for path in directory.iterdir()} == {
        *(weights(), "tokenizer.json", "config.json", "manifest.json"),
    }
    manifest = await asyncio.to_thread(manifest_of, target)
    assert manifest is not None
    assert manifest.source is not None
    assert (manifest.source.repository, manifest.source.file) == (CODEGEMMA, weights())
    assert (manifest.platform, manifest.quantisation, manifest.optimisation) == ("rk3588", "w8a8", 1)
    assert (manifest.converter_version, manifest.family, manifest.licence) == (
        *("1.1.2", "codegemma"),
        "Gemma Terms of Use",
    )
    assert manifest.files[0].sha256 == FileSpec(size_bytes=5000).sha256()
    assert ("download.finished", "codegemma-2b") in place.happened()
    # What the NPU needs to run it was asked for as well, and first; the model came although that did not.
    assert [(job.kind, job.state) for job in jobs.values()] == [("runtime", "failed"), ("model", "done")]


async def test_a_gguf_file_comes_alone_for_the_cpu(place: Place, hub: HubServer) -> None:
    place.board = CPU
    pulled = await place.library.pull(Request("qwen2.5-coder:1.5b"))
    assert pulled.runtime is None
    await place.work()
    assert place.models.find("qwen2.5-coder:1.5b").engine == "llama"
    assert hub.sent_bytes() == 3000


async def test_another_variant_of_the_same_gets_a_longer_name(place: Place) -> None:
    for variant in (weights(), "w8a8_g128"):
        await place.library.pull(Request(CODEGEMMA, variant, accept_licence=True))
        await place.work()
    assert [target.name for target in place.models.targets] == ["codegemma:2b", "codegemma:2b-w8a8_g128"]


async def test_what_is_here_is_not_fetched_again_unless_it_changed(place: Place, hub: HubServer) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    await place.work()
    hub.forget()
    assert (await place.library.pull(Request(GGUF))).job is None
    changed = FileSpec(size_bytes=3000, start=5)
    hub.add(GGUF, {"qwen2.5-coder-1.5b-q8_0.gguf": changed}, commit="1" * 40)
    assert (await place.library.pull(Request(GGUF))).job is not None
    await place.work()
    [target] = place.models.targets
    assert await place.library.verify(target) == {}
    manifest = await asyncio.to_thread(manifest_of, target)
    assert manifest is not None
    assert manifest.files[0].sha256 == changed.sha256()


async def test_the_licence_is_to_be_accepted_once_for_all_of_its_models(place: Place, hub: HubServer) -> None:
    problem = await refusal(place, Request(CODEGEMMA))
    assert problem.code is Code.LICENCE_NOT_ACCEPTED
    assert problem.detail["url"] == "https://ai.google.dev/gemma/terms"
    await place.library.pull(Request(CODEGEMMA, accept_licence=True))
    [acceptance] = await asyncio.to_thread(place.state.acceptances)
    assert (acceptance.licence, acceptance.repository) == ("gemma", CODEGEMMA)
    await place.downloads.cancel("codegemma-2b")
    hub.add("other/gemma-thing-GGUF", {"gemma-q8_0.gguf": FileSpec(size_bytes=9)}, licence="gemma")
    assert (await place.library.variants("other/gemma-thing-GGUF")).accepted
    hub.add("other/thing", {"x-q8_0.gguf": FileSpec(size_bytes=9)}, licence="other")
    hub.add("another/thing", {"x-q8_0.gguf": FileSpec(size_bytes=9)}, licence="other")
    await place.library.pull(Request("other/thing", accept_licence=True))
    assert not (await place.library.variants("another/thing")).accepted


async def test_a_gated_repository_asks_for_a_token_and_says_where_to_accept(place: Place, hub: HubServer) -> None:
    place.board = CPU
    hub.add("google/x-GGUF", {"x-q8_0.gguf": FileSpec(size_bytes=9)}, gated=True, token="hf_good")
    problem = await refusal(place, Request("google/x-GGUF"))
    assert problem.code is Code.HUB_GATED
    assert f"{hub.url}/google/x-GGUF" in problem.advice
    assert "rockfill hub login" in problem.advice
    place.token = "hf_bad"
    await place.library.pull(Request("google/x-GGUF"))
    jobs = await place.work()
    assert jobs["x"].problem is not None
    assert jobs["x"].problem.code is Code.HUB_GATED
    assert ("download.failed", "x") in place.happened()
    place.token = "hf_good"
    await place.library.pull(Request("google/x-GGUF"))
    assert (await place.work())["x"].state == "done"


async def test_what_cannot_run_here_is_refused_before_the_first_byte_unless_forced(
    place: Place, hub: HubServer
) -> None:
    place.board = replace(place.board, platform="rk3576")
    problem = await refusal(place, Request(CODEGEMMA, accept_licence=True))
    assert problem.code is Code.PLATFORM_MISMATCH
    assert "RK3576" in problem.message
    assert "--force" in problem.advice
    assert hub.sent_bytes() == 0
    pulled = await place.library.pull(Request(CODEGEMMA, accept_licence=True, force=True))
    assert pulled.warnings


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ("nobody/nothing", Code.REPOSITORY_NOT_FOUND),
        ("../../etc/passwd", Code.INVALID_VALUE),
        ("a/../b", Code.INVALID_VALUE),
        ("/etc/passwd", Code.INVALID_VALUE),
        ("a/b\0c", Code.INVALID_VALUE),
        ("a/b?x=1", Code.INVALID_VALUE),
        ("codegemma:9b", Code.INVALID_VALUE),
        ("a/" + "x" * 1000, Code.INVALID_VALUE),
    ],
)
async def test_names_that_are_none_are_refused(place: Place, reference: str, code: Code) -> None:
    assert (await refusal(place, Request(reference))).code is code


async def test_a_revision_or_variant_that_is_not_there_is_told(place: Place) -> None:
    assert (await refusal(place, Request(CODEGEMMA, revision="v9"))).code is Code.REPOSITORY_NOT_FOUND
    problem = await refusal(place, Request(CODEGEMMA, "w4a16", accept_licence=True))
    assert problem.code is Code.VARIANT_NOT_FOUND
    assert "w8a8_g128" in problem.advice


async def test_an_address_of_the_hub_is_taken_for_the_repository_in_it(place: Place, hub: HubServer) -> None:
    assert (await place.library.variants(f"{hub.url}/{CODEGEMMA}")).repository.name == CODEGEMMA


async def test_without_a_tokenizer_it_comes_from_the_model_that_was_converted(place: Place, hub: HubServer) -> None:
    hub.add("u/thing-rk3588-1.1.2", {"thing-w8a8.rkllm": FileSpec(size_bytes=9)}, base_model="org/thing")
    problem = await refusal(place, Request("u/thing-rk3588-1.1.2"))
    assert problem.code is Code.REPOSITORY_NOT_FOUND  # org/thing
    hub.add("org/thing", {"model.safetensors": FileSpec(size_bytes=9)})
    problem = await refusal(place, Request("u/thing-rk3588-1.1.2"))
    assert problem.code is Code.TOKENIZER_MISSING
    assert "--tokenizer" in problem.advice
    hub.add("org/thing", {"tokenizer.json": TOKENIZER})
    await place.library.pull(Request("u/thing-rk3588-1.1.2"))
    await place.work()
    [target] = place.models.targets
    manifest = await asyncio.to_thread(manifest_of, target)
    assert manifest is not None
    assert manifest.tokenizer == "org/thing"
    assert (place.state.path / "models/thing/tokenizer.json").read_text() == TOKENIZER.text


@pytest.mark.parametrize(
    "path", ["../up-q8_0.gguf", "a/../../up-q8_0.gguf", "/abs-q8_0.gguf", "x" * 300 + "-q8_0.gguf", "a\nb-q8_0.gguf"]
)
async def test_no_file_name_leaves_the_directory(place: Place, hub: HubServer, path: str) -> None:
    place.board = CPU
    hub.add("evil/repo", {path: FileSpec(size_bytes=9)})
    try:
        await place.library.pull(Request("evil/repo", force=True))
    except Problem as problem:
        assert problem.code is Code.INVALID_VALUE  # noqa: PT017 - either this, or it came under its last part
    else:
        await place.work()
    outside = [path for path in place.state.path.parent.rglob("*q8_0.gguf*") if "models" not in path.parts]
    assert outside == []
    assert {path.name for path in place.state.path.iterdir()} <= {"lock", "models", "hub-cache", "runtimes"}


async def test_a_link_in_place_of_the_directory_is_not_followed(place: Place, tmp_path: Path) -> None:
    place.board = CPU
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    models = place.state.path / "models"
    models.mkdir()
    (models / ".partial").symlink_to(elsewhere)
    with pytest.raises(Problem) as caught:
        await place.library.pull(Request(GGUF))
    assert caught.value.code is Code.STATE_DIR_UNUSABLE
    (models / ".partial").unlink()
    (models / "qwen2.5-coder-1.5b").symlink_to(elsewhere)
    await place.library.pull(Request(GGUF))
    jobs = await place.work()
    assert jobs["qwen2.5-coder-1.5b"].state == "failed"
    assert list(elsewhere.iterdir()) == []


# ---- the queue


async def test_cancelling_keeps_what_came_and_asking_again_goes_on(place: Place, hub: HubServer) -> None:
    place.board = CPU
    spec = FileSpec(size_bytes=4 << 20)
    hub.add("u/big-GGUF", {"big-q8_0.gguf": spec})
    hub.slow_down(4 << 20)
    working = asyncio.create_task(place.downloads.run())
    await place.library.pull(Request("u/big-GGUF"))
    while place.downloads.find("big").done_bytes < 1 << 20:  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0.01)
    job = await place.library.cancel("big")
    assert job.state == "cancelled"
    assert job.problem is None
    working.cancel()
    await asyncio.wait([working])
    # also after a restart, which does not go on by itself
    await place.reopen()
    await place.downloads.take_up()
    job = place.downloads.find("big")
    assert (job.state, job.done_bytes >= 1 << 20) == ("cancelled", True)
    hub.slow_down(0)
    hub.forget()
    await place.library.pull(Request("u/big-GGUF"))
    assert (await place.work())["big"].state == "done"
    assert hub.sent_bytes() <= spec.length - (1 << 20)


async def test_what_takes_its_place_when_it_is_cancelled_has_come(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.board = CPU
    began, go_on, publish = threading.Event(), threading.Event(), jobs._publish_files

    def slow(*arguments: Any) -> None:
        began.set()
        go_on.wait(10)
        publish(*arguments)

    monkeypatch.setattr(jobs, "_publish_files", slow)
    working = asyncio.create_task(place.downloads.run())
    job = (await place.library.pull(Request(GGUF))).job
    assert job is not None
    await asyncio.to_thread(began.wait, 10)
    cancelling = asyncio.create_task(place.downloads.cancel(job.id))
    await asyncio.sleep(0)
    go_on.set()
    assert (await cancelling).state == "done"
    assert [target.name for target in place.models.targets] == [job.name]
    working.cancel()
    await asyncio.wait([working])


async def test_whoever_hears_that_it_is_done_finds_the_model(place: Place) -> None:
    place.board = CPU
    found: list[tuple[str, list[str]]] = []

    def heard(event: Event) -> None:
        here = [target.name for target in place.models.targets]
        found.extend((job["state"], here) for job in event.value.get("downloads", []))

    place.bus.subscribe(heard)
    job = (await place.library.pull(Request(GGUF, use=True))).job
    assert job is not None
    await place.work()
    assert [here for state, here in found if state == "done"] == [[job.name]]


async def test_whoever_cancels_and_goes_away_ends_the_download_and_no_more(place: Place, hub: HubServer) -> None:
    place.board = CPU
    hub.slow_down(1000)
    working = asyncio.create_task(place.downloads.run())
    job = (await place.library.pull(Request(GGUF))).job
    assert job is not None
    while place.downloads.find(job.id).state != "fetching":  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0.01)
    cancelling = asyncio.create_task(place.downloads.cancel(job.id))
    await asyncio.sleep(0)
    cancelling.cancel()
    await asyncio.wait([cancelling])
    await asyncio.wait_for(place.downloads.idle(), 10)
    assert not working.done()
    working.cancel()
    await asyncio.wait([working])


async def test_what_was_under_way_is_taken_up_by_the_next_start(place: Place, hub: HubServer) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    await place.reopen()
    await place.downloads.take_up()
    assert (await place.work())["qwen2.5-coder-1.5b"].state == "done"


async def test_discarding_throws_away_what_came(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    await place.downloads.forget("qwen2.5-coder-1.5b")
    assert place.downloads.jobs == ()
    assert list((place.state.path / "models/.partial").iterdir()) == []


async def test_asking_twice_is_one_download(place: Place) -> None:
    place.board = CPU
    first = await place.library.pull(Request(GGUF))
    second = await place.library.pull(Request(GGUF))
    assert first.job == second.job
    assert len(await place.work()) == 1


async def test_asking_twice_at_once_is_one_download(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    plan = place.downloads.plan_of("qwen2.5-coder-1.5b")
    await place.downloads.forget(plan.slug)
    await asyncio.gather(*(place.downloads.add(plan) for _ in range(2)))
    await place.work()
    assert place.happened() == [("download.finished", "qwen2.5-coder-1.5b")]


async def test_what_came_and_cannot_be_noted_is_a_failed_download_and_the_queue_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.board = CPU

    def refuse(**_: object) -> None:
        raise Problem(Code.STATE_DIR_UNUSABLE, "It can't be written.")

    await place.library.pull(Request(GGUF, use=True))
    monkeypatch.setattr(place.state, "change", refuse)
    job = (await asyncio.wait_for(place.work(), 10))["qwen2.5-coder-1.5b"]
    assert job.problem is not None
    assert (job.state, job.problem.code) == ("failed", Code.STATE_DIR_UNUSABLE)
    assert place.happened() == [("download.failed", job.id)]


async def test_what_is_thrown_away_while_note_is_taken_of_it_ends_nothing_else(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.board = CPU
    noting, go_on = asyncio.Event(), asyncio.Event()

    async def installed(_: object) -> None:
        noting.set()
        await go_on.wait()

    monkeypatch.setattr(place.downloads, "_installed", installed)
    await place.library.pull(Request(GGUF))
    working = asyncio.create_task(place.downloads.run())
    await noting.wait()
    forgetting = asyncio.create_task(place.downloads.forget("qwen2.5-coder-1.5b"))
    await asyncio.sleep(0.05)
    go_on.set()
    await forgetting
    await asyncio.wait_for(place.downloads.idle(), 10)
    assert (place.downloads.jobs, working.done()) == ((), False)
    working.cancel()
    await asyncio.wait([working])


async def test_asking_again_while_it_is_thrown_away_begins_anew(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    plan = place.downloads.plan_of("qwen2.5-coder-1.5b")
    forgetting = asyncio.create_task(place.downloads.forget(plan.slug))
    while place.downloads.find(plan.slug).state != "cancelled":  # noqa: ASYNC110 - it has no event for that
        await asyncio.sleep(0)
    await asyncio.gather(forgetting, place.downloads.add(plan))
    assert (await asyncio.wait_for(place.work(), 10))[plan.slug].state == "done"


async def test_a_hub_that_fails_is_tried_again_by_and_by(place: Place, hub: HubServer) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    hub.fail("status", status=500, times=0)
    job = (await place.work())["qwen2.5-coder-1.5b"]
    assert (job.state, job.retry_in_s) == ("failed", 60.0)
    assert ("download.failed", job.id) in place.happened()
    hub.heal()
    await place.library.pull(Request(GGUF))
    assert (await place.work())["qwen2.5-coder-1.5b"].state == "done"


async def test_a_wrong_byte_makes_no_model(place: Place, hub: HubServer) -> None:
    place.board = CPU
    hub.fail("garbage", after_bytes=100)
    await place.library.pull(Request(GGUF))
    job = (await place.work())["qwen2.5-coder-1.5b"]
    assert job.problem is not None
    assert (job.problem.code, job.retry_in_s) == (Code.DOWNLOAD_CORRUPT, None)
    assert place.models.targets == ()
    assert list((place.state.path / "models").glob("*/manifest.json")) == []


async def test_a_file_of_an_earlier_plan_is_not_taken_for_that_of_this_one(place: Place, hub: HubServer) -> None:
    """Same name and size, other content: the first file came whole, then the repository changed."""
    old, new = (FileSpec(text=text, lfs=False) for text in ("old licence", "new licence"))
    gguf = FileSpec(size_bytes=3000)
    place.board = CPU
    hub.add(GGUF, {"qwen2.5-coder-1.5b-q8_0.gguf": gguf, "LICENSE": old, "NOTICE": old})
    hub.fail("status", status=404, where="hub", path="NOTICE", times=0)
    await place.library.pull(Request(GGUF))
    assert (await place.work())["qwen2.5-coder-1.5b"].state == "failed"
    hub.heal()
    hub.add(GGUF, {"qwen2.5-coder-1.5b-q8_0.gguf": gguf, "LICENSE": new, "NOTICE": new}, commit="2" * 40)
    hub.forget()
    await place.library.pull(Request(GGUF))
    await place.work()
    [target] = place.models.targets
    assert await place.library.verify(target) == {}
    assert (place.state.path / "models/qwen2.5-coder-1.5b/LICENSE").read_text() == new.text
    assert hub.sent_bytes("q8_0") == 0, "the weights are the same, and were not fetched again"


async def test_the_whole_state_is_published_on_every_change(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    await place.work()
    states = [event.value["downloads"][0]["state"] for event in place.events if event.type == "downloads.changed"]
    assert list(dict.fromkeys(states)) == ["queued", "fetching", "done"]
    json.dumps([dict(event.value) for event in place.events])


# ---- when needed


async def test_what_is_chosen_and_not_here_is_fetched_and_said_to_be(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF, use=True))
    for name in ("", "qwen2.5-coder:1.5b", "qwen2.5-coder:1.5b:latest"):
        with pytest.raises(Problem) as caught:
            place.library.find(name)
        assert caught.value.code is Code.MODEL_FETCHING
        assert caught.value.detail["retry_after_s"] > 0
        assert "0 %" in caught.value.message
    await place.work()
    [target] = place.arrived
    assert target.name == "qwen2.5-coder:1.5b"
    choices = await asyncio.to_thread(place.state.choices)
    assert (choices.model, choices.wanted) == (target.name, None)
    assert place.library.find(target.name) == target


async def test_what_was_chosen_is_fetched_at_the_start(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF, use=True))
    await place.downloads.forget("qwen2.5-coder-1.5b")  # all that is left of it is the wish
    await place.reopen()
    await place.downloads.take_up()
    assert place.downloads.jobs == ()
    working = [asyncio.create_task(place.library.run()), asyncio.create_task(place.downloads.run())]
    while not place.arrived:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    for task in working:
        task.cancel()
    await asyncio.wait(working)
    assert place.models.find("qwen2.5-coder:1.5b").engine == "llama"


async def test_what_came_just_before_a_kill_is_chosen_at_the_next_start(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    await place.work()
    wanted = Wanted("qwen2.5-coder:1.5b", GGUF, "qwen2.5-coder-1.5b-q8_0.gguf", None, forced=False, tokenizer=None)
    await asyncio.to_thread(partial(place.state.change, wanted=wanted))
    await place.reopen()
    working = asyncio.create_task(place.library.run())
    async with asyncio.timeout(10):
        while not place.arrived:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    working.cancel()
    await asyncio.wait([working])
    choices = await asyncio.to_thread(place.state.choices)
    assert (choices.model, choices.wanted) == ("qwen2.5-coder:1.5b", None)


async def test_nothing_is_fetched_that_nobody_chose(place: Place, hub: HubServer) -> None:
    with pytest.raises(Problem) as caught:
        place.library.find("codegemma:2b")
    assert caught.value.code is Code.MODEL_NOT_FOUND
    working = asyncio.create_task(place.library.run())
    await asyncio.sleep(0.05)
    working.cancel()
    await asyncio.wait([working])
    assert hub.log == []


async def test_what_cannot_be_fetched_is_told_to_whoever_needs_it(place: Place, hub: HubServer) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF, use=True))
    hub.fail("status", status=404, where="hub", times=0)
    await place.work()
    hub.heal()
    hub.add(GGUF, {"README.md": FileSpec(text="gone", lfs=False)})
    working = asyncio.create_task(place.library.run())
    with pytest.raises(Problem) as caught:
        place.library.find("")
    assert caught.value.code is Code.MODEL_FETCHING  # it is being tried once more
    while place.library.problem is None:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    with pytest.raises(Problem) as caught:
        place.library.find("")
    assert caught.value.code is Code.VARIANT_NOT_FOUND
    working.cancel()
    await asyncio.wait([working])


async def test_cancelling_what_was_chosen_ends_the_wish(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF, use=True))
    await place.library.cancel("qwen2.5-coder-1.5b")
    assert (await asyncio.to_thread(place.state.choices)).wanted is None
    with pytest.raises(Problem) as caught:
        place.library.find("")
    assert caught.value.code is Code.MODEL_NOT_FOUND


# ---- what is here


async def test_only_what_was_installed_is_removed(place: Place) -> None:
    place.board = CPU
    await place.library.pull(Request(GGUF))
    await place.work()
    [target] = place.models.targets
    directory = place.state.path / "models/qwen2.5-coder-1.5b"
    (directory / "my-notes.txt").write_text("mine")
    assert await place.library.remove(target) == ["my-notes.txt"]
    assert [path.name for path in directory.iterdir()] == ["my-notes.txt"]
    assert place.models.targets == ()


@pytest.mark.parametrize("manifest", [{}, {"files": [{"name": "../../lock", "size_bytes": 0}]}])
async def test_a_directory_of_somebody_elses_is_not_removed(place: Place, manifest: dict[str, Any]) -> None:
    directory = place.state.path / "models/mine"
    directory.mkdir(parents=True)
    (directory / "x.gguf").write_text("x")
    value = {"name": "mine", "engine": "llama", "file": "x.gguf", **manifest}
    (directory / "manifest.json").write_text(json.dumps(value))
    await place.reopen()
    [target] = place.models.targets
    with pytest.raises(Problem) as caught:
        await place.library.remove(target)
    assert caught.value.code in (Code.NOT_REMOVABLE, Code.INVALID_VALUE)
    assert (directory / "x.gguf").exists()
    assert (place.state.path / "lock").exists()


async def test_verify_finds_what_is_not_as_it_was(place: Place) -> None:
    await place.library.pull(Request(CODEGEMMA, accept_licence=True))
    await place.work()
    target = place.models.find("codegemma:2b")
    directory = place.state.path / "models/codegemma-2b"
    assert await place.library.verify(target) == {}
    content = bytearray((directory / weights()).read_bytes())
    content[17] ^= 1
    (directory / weights()).write_bytes(content)
    (directory / "config.json").unlink()
    (directory / "tokenizer.json").write_text("")
    assert await place.library.verify(target) == {
        weights(): "has other content",
        "tokenizer.json": "has 0 bytes instead of 12",
        "config.json": "is missing",
    }


async def test_models_are_brought_in_from_files(place: Place, tmp_path: Path, hub: HubServer) -> None:
    source = tmp_path / "stick-1.1.2"
    source.mkdir()
    (source / weights()).write_bytes(b"weights")
    with pytest.raises(Problem) as caught:
        await place.library.bring_in(Import(source))
    assert caught.value.code is Code.TOKENIZER_MISSING
    hub.add("google/codegemma-2b", {"tokenizer.json": TOKENIZER})
    assert await place.library.bring_in(Import(source), "google/codegemma-2b") == "codegemma:2b"
    (source / "tokenizer.json").write_text("{}")
    assert await place.library.bring_in(Import(source / weights())) == "codegemma:2b-w8a8"
    assert await place.library.bring_in(Import(source, name="own"), str(source)) == "own"
    target = place.models.find("codegemma:2b")
    assert await place.library.verify(target) == {}
    assert (place.state.path / "models/codegemma-2b/tokenizer.json").read_text() == TOKENIZER.text
    assert await asyncio.to_thread(place.library.converter_of, target.path) == "1.1.2"
    for path in (tmp_path / "nothing.gguf", tmp_path):
        with pytest.raises(Problem):
            await place.library.bring_in(Import(path))
    assert len(place.models.targets) == 3


async def test_no_import_takes_the_place_of_another_model(place: Place, tmp_path: Path) -> None:
    """Two names may have the same directory, and a directory may be there that is no model."""
    for number in (1, 2):
        (tmp_path / f"own{number}.gguf").write_bytes(b"weights %d" % number)
    assert await place.library.bring_in(Import(tmp_path / "own1.gguf", name="a:2b")) == "a:2b"
    assert await place.library.bring_in(Import(tmp_path / "own2.gguf", name="a-2b")) == "own2"
    assert (place.state.path / "models/a-2b/own1.gguf").exists()
    (place.state.path / "models/other").mkdir()
    with pytest.raises(Problem) as caught:
        await place.library.bring_in(Import(tmp_path / "own2.gguf", name="other"))
    assert caught.value.code is Code.NOT_REMOVABLE
    assert list((place.state.path / "models/other").iterdir()) == []


async def test_an_import_and_a_download_of_one_name_at_once_spoil_neither(place: Place, tmp_path: Path) -> None:
    """The download is asked for while the import copies, so that neither knows of the other's name."""
    place.board = CPU
    (tmp_path / "own.gguf").write_bytes(b"own weights")
    shelf = Shelf(place.state.path / "models")
    downloaded = (await place.library.pull(Request(GGUF))).job
    assert downloaded is not None
    await asyncio.to_thread(bring_in, shelf, Import(tmp_path / "own.gguf", name=downloaded.name), {})
    ended = await place.work()
    assert [(job.state, job.problem and job.problem.code) for job in ended.values()] == [("failed", Code.NOT_REMOVABLE)]
    await asyncio.to_thread(place.models.read_again)
    [target] = place.models.targets
    assert await place.library.verify(target) == {}
    assert (shelf.root / downloaded.id / "own.gguf").read_bytes() == b"own weights"


async def test_what_is_brought_in_is_on_the_disk(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    sync = os.fsync

    def note(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        sync(fd)

    monkeypatch.setattr(os, "fsync", note)
    (tmp_path / "own.gguf").write_bytes(b"weights")
    await place.library.bring_in(Import(tmp_path / "own.gguf"))
    assert os.stat(place.models.targets[0].path).st_ino in synced  # noqa: PTH116


async def test_two_imports_at_once_are_two_models(place: Place, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"own{number}.gguf").write_bytes(bytes([number]) * (8 << 20))
    wishes = [Import(tmp_path / f"own{number}.gguf", name="same") for number in (1, 2)]
    assert await asyncio.gather(*map(place.library.bring_in, wishes)) == ["same", "own2"]
    for target in place.models.targets:
        assert await place.library.verify(target) == {}


def test_what_lies_ready_to_be_brought_in_is_what_is_one_model(tmp_path: Path) -> None:
    (tmp_path / "alone.gguf").write_bytes(b"12345")
    (tmp_path / "notes.txt").write_text("no model")
    for name, files in {"whole": ("m.rkllm", "tokenizer.json"), "two": ("a.gguf", "b.gguf"), "none": ()}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(b"123")
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling" / "gone.gguf").symlink_to(tmp_path / "nowhere")  # one that can't be read hides no other
    assert importable(tmp_path) == [Importable(tmp_path / "alone.gguf", 5), Importable(tmp_path / "whole", 3)]
    assert importable(tmp_path / "missing") == importable(tmp_path / "notes.txt") == []
