"""Choosing, fetching and keeping models on the page, against a stand-in Hub and a simulated board."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.browser.driving import answer, refusal, sign_in, state, until
from tests.browser.stage import FOREIGN, GATED, REPOSITORY, SMALL, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

MIB = 1 << 20


@pytest.fixture(scope="module")
def shared_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage"), size_bytes=8 * MIB) as running:
        yield running


@pytest.fixture
def stage(shared_stage: Stage) -> Stage:
    shared_stage.hub.heal()
    shared_stage.hub.know("right", "somebody")
    shared_stage.hub.slow_down(0)
    return shared_stage


def look(page: Page, repository: str) -> Locator:
    """The rows of the repository's variants."""
    page.get_by_label("Or any repository of the Hub").fill(repository)
    page.get_by_role("button", name="Look").click()
    rows = page.get_by_role("region", name="Variants").get_by_role("row")
    expect(rows.nth(1)).to_be_visible()
    return rows


def download(page: Page) -> Locator:
    return page.get_by_role("region", name="Downloads")


def here(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name="On this machine").get_by_role("listitem").filter(has_text=name)


def test_the_table_says_what_decides_and_recommends_one(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "models")
    page.get_by_role("button", name="Variants of CodeGemma 2B").click()
    rows = page.get_by_role("region", name="Variants").get_by_role("row")
    expect(rows).to_have_count(5)
    first = rows.nth(1)
    expect(first).to_contain_text("recommended")
    expect(first.get_by_role("rowheader")).to_contain_text("w8a8")
    expect(first.locator("td[data-name=Size]")).to_have_text("8.39 MB")
    expect(first.locator("td[data-name=Fits]")).to_have_text("yes")
    expect(first.locator("td[data-name=Speed]")).to_contain_text("10.4 tok/s")
    expect(first).to_contain_text("w8a8 is the fastest kind")
    expect(page.get_by_role("region", name="Variants")).to_contain_text("Gemma Terms of Use")


def test_the_licence_is_shown_and_nothing_is_fetched_without_its_acceptance(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "models")
    row = look(page, REPOSITORY).nth(1)
    row.get_by_role("button", name="Fetch").click()
    dialog = page.get_by_role("dialog", name="Licence")
    expect(dialog).to_contain_text("Gemma Terms of Use")
    expect(dialog.get_by_role("link", name="Read the licence")).to_have_attribute(
        "href", "https://ai.google.dev/gemma/terms"
    )
    dialog.get_by_role("button", name="Not now").click()
    expect(dialog).to_have_count(0)
    assert not [asked for asked in stage.hub.log if "resolve" in str(asked) and ".rkllm" in str(asked)]
    expect(download(page)).to_have_count(0)


def test_a_model_is_fetched_with_progress_cancelled_resumed_used_and_removed(page: Page, stage: Stage) -> None:
    stage.hub.slow_down(MIB)
    stage.hub.fail("hold", path=".rkllm", after_bytes=3 * MIB, times=0)  # so that nothing of what follows is too late
    sign_in(page, stage.appliance, "models")
    row = look(page, SMALL).nth(1)
    row.get_by_role("button", name="Fetch").click()
    expect(download(page)).to_contain_text(re.compile(r"[\d.]+ MB of 8.\d+ MB"))
    expect(download(page)).to_contain_text(re.compile(r"[kM]B/s"))
    expect(download(page)).to_contain_text(re.compile(r"\d+ (s|min) left"))
    bar = download(page).get_by_role("progressbar")
    page.wait_for_function("() => document.querySelector('progress').value > 0.1")
    assert 0 < float(bar.evaluate("bar => bar.value")) < 1
    download(page).get_by_role("button", name="Cancel").click()
    expect(download(page)).to_contain_text("what has come is kept")
    stage.hub.heal()
    stage.hub.slow_down(0)
    download(page).get_by_role("button", name="Go on").click()
    fetched = here(page, "small")
    expect(fetched).to_contain_text("w8a8")
    expect(download(page)).to_have_count(0)
    fetched.get_by_role("button", name="Verify").click()
    expect(page.get_by_role("region", name="On this machine").get_by_role("status")).to_contain_text(
        "is as it was fetched"
    )
    fetched.get_by_role("button", name="Remove…").click()
    page.get_by_role("button", name="Remove it").click()
    expect(fetched).to_have_count(0)


def test_an_old_answer_does_not_take_the_place_of_a_newer_one(page: Page, stage: Stage) -> None:
    lists = answer(page, {"models.list": []})  # answered below, the last one first
    sign_in(page, stage.appliance, "models")
    link = page.get_by_role("navigation").get_by_role("link")
    link.filter(has_text="Board").click()
    expect(page.locator("#board")).to_be_visible()
    link.filter(has_text="Models").click()
    until(page, lambda: len(lists.asked) >= 2 and page.locator("#models").is_visible())
    now = {"success": True, "result": stage.appliance.command("models.list")}
    lists.answers["models.list"] = [now]  # should it be asked for once more
    first, *_, last = [frame["id"] for frame in lists.asked]
    lists.tell(last, now)
    expect(here(page, "rockfill-tiny")).to_be_visible()
    lists.tell(first, {"success": True, "result": {"models": []}})
    page.get_by_role("button", name="Variants of CodeGemma 2B").click()  # what came before that is dealt with
    expect(page.get_by_role("region", name="Variants").get_by_role("row")).to_have_count(5)
    expect(here(page, "rockfill-tiny")).to_be_visible()


def test_another_model_is_used_and_the_first_one_again(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "models")
    here(page, "rockfill-tiny").get_by_role("button", name="Use").click()
    expect(state(page)).to_contain_text("rockfill-tiny")
    expect(here(page, "rockfill-tiny")).to_contain_text("chosen")
    expect(state(page)).to_contain_text("Ready")
    here(page, "codegemma").get_by_role("button", name="Use").click()
    expect(state(page)).to_contain_text("codegemma")
    expect(state(page)).to_contain_text("Ready")
    here(page, "codegemma").get_by_role("button", name="Keep it loaded").click()
    expect(here(page, "codegemma")).to_contain_text("kept loaded")
    here(page, "codegemma").get_by_role("button", name="Let it be unloaded").click()
    expect(here(page, "codegemma")).not_to_contain_text("kept loaded")


def test_what_can_not_run_here_is_refused_with_its_reason_before_anything_is_fetched(page: Page, stage: Stage) -> None:
    stage.hub.forget()
    sign_in(page, stage.appliance, "models")
    row = look(page, FOREIGN).nth(1)
    expect(row.locator("td[data-name=Fits]")).to_have_text("no")
    expect(row).to_contain_text("platform_mismatch")
    expect(row.get_by_role("button", name="Use")).to_have_count(0)
    row.get_by_role("button", name="All the same…").click()
    expect(page.get_by_role("dialog")).to_contain_text("Most likely it will not load")
    page.get_by_role("button", name="Leave it").click()
    assert not [asked for asked in stage.hub.log if "resolve" in str(asked)]


def test_a_gated_model_asks_for_a_token_and_says_what_is_wrong_with_it(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "models")
    row = look(page, GATED).nth(1)
    row.get_by_role("button", name="Fetch").click()
    dialog = page.get_by_role("dialog", name="Sign in to the Hub")
    expect(dialog.get_by_role("alert")).to_contain_text("hub_gated")
    dialog.get_by_label("Access token").fill("wrong")
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog.get_by_role("alert")).not_to_contain_text("hub_gated")
    dialog.get_by_label("Access token").fill("right")
    dialog.get_by_role("button", name="Sign in").click()
    expect(here(page, "gated")).to_be_visible()
    page.get_by_role("button", name="Forget the token").click()
    expect(page.get_by_role("button", name="Give it a token")).to_be_visible()


def test_a_repository_that_is_not_there_is_said_where_it_was_asked_for(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "models")
    page.get_by_label("Or any repository of the Hub").fill("no/such")
    page.get_by_role("button", name="Look").click()
    expect(page.get_by_role("region", name="Variants").get_by_role("alert")).to_contain_text("no/such")


def test_the_runtime_that_is_used_is_named_with_its_reason(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "models")
    card = page.get_by_role("region", name="Runtimes")
    expect(card).to_contain_text("1.2.3")
    expect(card).to_contain_text("used")
    expect(card).to_contain_text("named in the configuration")
    expect(card.get_by_label("Fetch a release of Rockchip’s")).to_be_visible()


def test_what_came_of_a_runtime_s_button_stays_when_the_list_is_read_anew(page: Page, stage: Stage) -> None:
    scripted = answer(page, {"runtimes.install": [refusal("hub_unreachable", "Nobody is there.")]})
    sign_in(page, stage.appliance, "models")
    card = page.get_by_role("region", name="Runtimes")
    card.get_by_role("button", name="Fetch").click()
    expect(card.get_by_role("alert")).to_contain_text("Nobody is there.")
    scripted.answers["hub.get"] = [{"success": True, "result": {"endpoint": "http://elsewhere", "has_token": False}}]
    for view in ("Board", "Models"):
        page.get_by_role("navigation").get_by_role("link", name=view).click()
    expect(card).to_contain_text("Models come from http://elsewhere")
    expect(card.get_by_role("alert")).to_contain_text("Nobody is there.")


def test_a_file_that_is_not_there_is_not_imported_and_says_so(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "models")
    card = page.get_by_role("region", name="From a file")
    card.get_by_label("File or directory").fill("/no/such.rkllm")
    card.get_by_role("button", name="Import").click()
    expect(card.get_by_role("alert")).to_contain_text("/no/such.rkllm")


def test_what_lies_ready_for_import_is_listed_and_brought_in(page: Page, stage: Stage) -> None:
    directory = stage.appliance.state_dir / "import"
    directory.mkdir(exist_ok=True)
    name = "brought-in.gguf"
    (directory / name).write_bytes(b"GGUF" + bytes(5000))
    try:
        sign_in(page, stage.appliance, "models")
        card = page.get_by_role("region", name="From a file")
        expect(card).to_contain_text(str(directory))
        found = card.get_by_role("list", name="Found for import").get_by_role("listitem")
        expect(found).to_contain_text(name)
        found.get_by_role("button").click()
        expect(here(page, "brought-in")).to_be_visible()
    finally:
        (directory / name).unlink()


def test_what_an_evaluation_found_stands_beside_the_model_and_beside_its_variant(page: Page, stage: Stage) -> None:
    appliance = stage.appliance
    before = appliance.command("engine.get")["model"]["name"]
    name = appliance.command("models.use", model=REPOSITORY, accept_licence=True)["model"]
    while (running := appliance.command("engine.get"))["state"] != "ready" or running["model"]["name"] != name:
        time.sleep(0.05)
    score = {"name": "tasks", "count": 400, "passed": 0.5, "exact": 0.25, "similarity": 0.6, "loops": 0, "median_s": 1}
    appliance.command("evaluations.keep", questions="q.jsonl", sha256="ab", seed=0, limit=None, scores=[score])
    said = re.compile(r"Measured with .*1\.2\..* on q\.jsonl: 50\.0 % ± 2\.5 of 400 tasks right, 25\.0 % ± 2\.2 exact")
    sign_in(page, appliance, "models")
    expect(here(page, name)).to_contain_text(said)
    expect(look(page, REPOSITORY).nth(1)).to_contain_text(said)
    expect(here(page, "rockfill-tiny")).to_contain_text(re.compile(r"[\d.]+ % ± [\d.]+ of 1,033 tasks right"))
    appliance.command("models.use", model=before)
    appliance.command("models.remove", model=name)


MARKUP = "<img src=x onerror='window.hit = true'>"


def test_markup_in_names_and_messages_of_elsewhere_is_text(page: Page, stage: Stage) -> None:
    """Names come from repositories and file systems, messages from the Hub: none of it is ever markup."""
    model: Any = {
        "name": MARKUP, "aliases": [], "engine": MARKUP, "family": None, "demonstration": False, "chosen": False,
        "size_bytes": 1, "quantisation": MARKUP, "licence": MARKUP, "path": MARKUP, "removable": True,
        "source": {"repository": MARKUP, "commit": "", "file": ""}, "evaluations": [],
    }  # fmt: skip
    score = {"name": MARKUP, "count": 1, "passed": None, "exact": 1, "similarity": 1, "loops": 0, "median_s": 1}
    evaluations = [{"runtime": MARKUP, "evaluation": {"questions": MARKUP, "scores": [score]}}]
    licence = {
        "id": "x",
        "name": MARKUP,
        "url": "javascript:window.hit=true",
        "to_be_accepted": True,
        "accepted": False,
    }
    variant = {
        "file": MARKUP, "model": MARKUP, "engine": "rkllm", "quantisation": MARKUP, "optimisation": None,
        "hybrid_ratio": None, "platform": MARKUP, "converter_version": MARKUP, "size_bytes": None, "fits": False,
        "problems": [{"severity": "refuse", "code": MARKUP, "message": MARKUP, "advice": MARKUP}],
        "expected_tokens_per_second": None, "measured": False, "speed_source": MARKUP, "recommended": True,
        "reason": MARKUP, "runtime": {"version": MARKUP, "installed": False, "reason": MARKUP},
        "evaluations": evaluations,
    }  # fmt: skip
    variants = {"repository": MARKUP, "commit": "", "gated": True, "licence": licence, "variants": [variant]}
    answer(
        page,
        {
            "models.list": [{"success": True, "result": {"models": [model]}}],
            "models.variants": [{"success": True, "result": variants}],
            "models.verify": [refusal(MARKUP, MARKUP, MARKUP)],
        },
    )
    sign_in(page, stage.appliance, "models")
    here(page, MARKUP).get_by_role("button", name="Verify").click()
    expect(here(page, MARKUP).get_by_role("alert")).to_contain_text(MARKUP)
    look(page, MARKUP)
    expect(page.get_by_role("region", name="Variants")).to_contain_text(MARKUP)
    # An address that is none of the web's is no link at all.
    expect(page.get_by_role("region", name="Variants").locator("p a")).not_to_have_attribute("href", re.compile("."))
    assert page.locator("main img").count() == 0
    assert page.evaluate("window.hit") is None
