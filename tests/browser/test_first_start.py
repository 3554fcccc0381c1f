"""From an appliance without a model to the first completion on the NPU, and what is said where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from playwright.sync_api import expect

from tests.browser.driving import address, answer, ask_at_the_end_of, ghost, sign_in, state
from tests.browser.stage import Stage
from tests.browser.test_pure import run

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Page

    from tests.appliance import Appliance

MIB = 1 << 20


def test_the_guide_leads_to_the_first_completion_on_the_npu(page: Page, tmp_path: Path) -> None:
    with Stage(tmp_path, size_bytes=4 * MIB, chosen=False) as stage:
        stage.hub.slow_down(MIB // 64)  # four minutes of it, unless it is let go
        sign_in(page, stage.appliance)
        guide = page.get_by_role("region", name="First steps")
        expect(guide).to_contain_text("rockfill-tiny, a small demonstration")
        expect(guide).to_contain_text("until you choose one for the NPU")
        expect(guide.get_by_role("listitem").first).to_contain_text("Version 1.2.3 is here.")
        guide.get_by_role("button", name="Fetch and use CodeGemma 2B").click()
        page.get_by_role("button", name="I have read it and accept").click()
        expect(guide.get_by_role("progressbar")).to_be_visible()
        expect(guide).to_contain_text("is on its way")
        stage.hub.slow_down(0)
        expect(state(page)).to_contain_text("codegemma")
        expect(state(page)).to_contain_text("Ready")
        expect(guide).to_contain_text("A real model runs.")
        expect(guide.locator("[aria-current=step]")).to_contain_text("The first completion")
        ask_at_the_end_of(page, "def add(a, b):\n    return ")
        expect(ghost(page)).to_be_visible()
        expect(guide).to_have_count(0)
        assert stage.appliance.command("engine.get")["runtime"].startswith("RKLLM")
        page.close()


def test_where_there_is_no_npu_the_guide_says_what_runs_and_why_and_can_be_put_off(
    page: Page, shared: Appliance
) -> None:
    sign_in(page, shared)
    guide = page.get_by_role("region", name="First steps")
    expect(guide).to_contain_text("rockfill-tiny, a small demonstration that is not a good programmer, runs on the CPU")
    expect(guide).to_contain_text("no NPU")
    expect(guide.get_by_role("button", name="Fetch and use Qwen2.5-Coder 0.5B")).to_be_visible()
    guide.get_by_role("button", name="Not now").click()
    expect(guide).to_have_count(0)
    page.reload()
    expect(page.locator(".cm-content")).to_be_visible()
    expect(guide).to_have_count(0)


def test_what_was_chosen_and_does_not_run_is_named_with_its_problem(page: Page, shared: Appliance) -> None:
    engine: Any = shared.command("engine.get")
    problem = {"code": "runtime_missing", "message": "There is no runtime.", "advice": "Install one.", "detail": {}}
    chosen = {"name": "codegemma-2b", "engine": "rkllm", "family": None, "demonstration": False}
    scripted = answer(page, {})
    instead = {"model": chosen, "problem": problem}
    scripted.replace["engine.changed"] = {**engine, "type": "engine.changed", "topic": "engine", "instead_of": instead}
    sign_in(page, shared)
    guide = page.get_by_role("region", name="First steps")
    expect(guide).to_contain_text("codegemma-2b was chosen, and can’t run as things are. Meanwhile rockfill-tiny")
    expect(guide.get_by_role("alert")).to_have_text("There is no runtime. Install one. runtime_missing")


TINY = {"name": "rockfill-tiny", "engine": "llama", "demonstration": True}
REAL = {"name": "codegemma", "engine": "rkllm", "demonstration": False}
CATALOGUE = [
    {"name": "codegemma:2b", "title": "C", "note": ""},
    {"name": "qwen2.5-coder:0.5b", "title": "Q", "note": ""},
]
RKNPU = {"npu": {"driver": "rknpu", "in_device_tree": True}}
ROCKET = {"npu": {"driver": "rocket", "in_device_tree": True}}
BARE = {"npu": {"driver": None, "in_device_tree": True}}
NONE = {"npu": {"driver": None, "in_device_tree": None}}
JOB = {"kind": "model", "state": "fetching", "name": "codegemma"}
CASES = [
    # the engine's model, the board, downloads; the states of the steps, the suggestion, a part of what is said
    (TINY, RKNPU, [], ["done", "now", "later"], "codegemma:2b", "until you choose one for the NPU"),
    (TINY, NONE, [], ["now", "later"], "qwen2.5-coder:0.5b", "this machine has no NPU"),
    (TINY, ROCKET, [], ["now", "later"], "qwen2.5-coder:0.5b", "rocket"),
    (TINY, BARE, [], ["now", "later"], "qwen2.5-coder:0.5b", "has no driver for the NPU"),
    (TINY, None, [], ["now", "later"], None, "runs on the CPU."),
    (None, NONE, [], ["now", "later"], "qwen2.5-coder:0.5b", "No model runs"),
    (TINY, RKNPU, [JOB], ["done", "now", "later"], None, "until you choose"),
    (REAL, RKNPU, [], ["done", "done", "now"], None, ""),
]


def test_the_steps_follow_from_what_is_known(page: Page, shared: Appliance) -> None:
    runtimes = {"runtimes": [{"version": "1.2.3", "problem": None}]}
    asked = [
        {
            "engine": {"model": model, "instead_of": None},
            "board": board,
            "downloads": downloads,
            "runtimes": runtimes,
            "catalogue": CATALOGUE,
        }
        for model, board, downloads, *_ in CASES
    ]
    page.goto(address(shared))
    made = run(
        page,
        shared,
        "guide.js",
        """x.map((known) => m.guide({ ...known, board: known.board ?? undefined })).map(({ steps, instead }) =>
            [steps.map(({ state }) => state), steps.map(({ suggestion }) => suggestion?.name).find(Boolean) ?? null,
             instead])""",
        asked,
    )
    for (states, suggestion, instead), (*_, wanted, suggested, said) in zip(made, CASES, strict=True):
        assert (states, suggestion) == (wanted, suggested)
        assert said in instead
