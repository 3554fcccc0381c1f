"""The board on the page: live figures, clocks, what is wrong, and what happened."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.browser.driving import answer, refusal, sign_in, state, until
from tests.browser.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page

    from tests.appliance import Appliance, ScriptedAppliance


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("stage")) as running:
        yield running


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name, exact=True)


def drawn(page: Page, chart: str) -> int:
    """How many pixels of the chart's canvas have something on them."""
    return int(
        page.evaluate(
            """(chart) => {
                const canvas = document.querySelector(`#chart-${chart} canvas`);
                const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                return data.filter((value, at) => at % 4 === 3 && value > 0).length;
            }""",
            chart,
        )
    )


def test_the_figures_and_charts_follow_the_board(page: Page, stage: Stage) -> None:
    stage.npu(42, 46.3)
    sign_in(page, stage.appliance, "board")
    legend = page.locator("#chart-npu .legend")
    expect(legend).to_contain_text("Core 042 %")
    heat = page.locator("#chart-heat .legend")
    expect(heat).to_contain_text("NPU46 °C")
    until(page, lambda: drawn(page, "npu") > 0)
    picture = "() => document.querySelector('#chart-npu canvas').toDataURL()"
    before = page.evaluate(picture)
    stage.npu(93, 61.0)
    expect(legend).to_contain_text("Core 093 %")
    expect(heat).to_contain_text("NPU61 °C")
    expect(page.locator(".hero")).to_contain_text("NPU temperature °C61")
    expect(page.locator("#readouts")).to_contain_text("NPU temperature61°C")
    until(page, lambda: page.evaluate(picture) != before)


def test_what_was_before_the_page_is_there(page: Page, stage: Stage) -> None:
    """A day of minutes, put in the place of the daemon's history."""
    now = stage.appliance.command("stats.get")["time_s"]
    times = [now - 60 * number for number in range(600, 0, -1)]
    columns = {"time_s": times, "npu.temp_celsius": [40 + number % 30 for number in range(600)]}
    history = {"resolution": "minutes", "columns": columns}
    scripted = answer(page, {"stats.history": [{"success": True, "result": history}]})
    sign_in(page, stage.appliance, "board")
    page.get_by_role("button", name="24 hours").click()
    expect(page.get_by_role("button", name="24 hours")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#chart-heat .legend")).to_contain_text("NPU69 °C")
    until(page, lambda: [frame["resolution"] for frame in scripted.asked] == ["seconds", "minutes"])
    page.locator("#chart-heat .u-over").hover(position={"x": 200, "y": 20})
    expect(page.locator("#chart-heat .legend")).not_to_contain_text("NPU69 °C")  # the value under the pointer


def test_a_figure_that_a_board_lacks_is_a_dash_and_a_word(page: Page, stage: Stage) -> None:
    figures = {"npu.load_percent": None, "npu.temp_celsius": None, "cpu.load_percent": 12, "queue.depth": 0}
    event = {"type": "stats.sampled", "topic": "stats", "time_s": 1.0, "figures": figures}
    scripted = answer(page, {"stats.history": [{"success": True, "result": {"columns": {"time_s": []}}}]})
    scripted.replace["stats.sampled"] = event
    sign_in(page, stage.appliance, "board")
    expect(page.locator(".hero")).to_contain_text("CPU load %12")
    expect(page.locator(".hero div", has_text="CPU temperature").locator("dd")).to_have_text("–")
    expect(page.locator("#chart-npu")).to_contain_text("does not tell")


def test_the_clock_policy_is_changed_and_the_clocks_are_given_back(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "board")
    clocks = card(page, "Clocks")
    clocks.get_by_label("Raise them").select_option("always")
    expect(clocks.get_by_role("status")).to_have_text("Raised now")
    expect(clocks.get_by_role("row", name="npu")).to_contain_text("raised by Rockfill")
    raised = {path: governor for path, governor in stage.read_governors().items() if "gpu" not in path}
    assert set(raised.values()) == {"performance"}
    clocks.get_by_label("npu, when raised").select_option("700 MHz")
    expect(clocks.get_by_role("row", name="npu")).to_contain_text("700 MHz to 700 MHz")
    clocks.get_by_label("npu, when raised").select_option("its highest")
    expect(clocks.get_by_role("row", name="npu")).to_contain_text("300 MHz to 1 GHz")
    clocks.get_by_role("button", name="Give them back now").click()
    expect(clocks.get_by_role("status")).to_have_text("Not raised now")
    assert stage.read_governors() == stage.governors
    clocks.get_by_label("Raise them").select_option("off")
    until(page, lambda: stage.appliance.command("clocks.get")["policy"] == "off")  # a page that goes takes it back
    page.reload()
    expect(card(page, "Clocks").get_by_label("Raise them")).to_have_value("off")


def test_the_answer_to_a_change_of_the_clocks_counts_though_it_comes_late(page: Page, stage: Stage) -> None:
    """The engine has the page read them anew, which may be answered before a change that was asked for first."""
    appliance = stage.appliance
    before = appliance.command("clocks.get")
    scripted = answer(page, {"clocks.set": []})
    sign_in(page, appliance, "board")
    clocks = card(page, "Clocks")
    expect(clocks.get_by_role("status")).to_have_text("Not raised now")
    clocks.get_by_label("Raise them").select_option("always")
    until(page, lambda: scripted.asked)
    reading = {"success": True, "result": {**before, "hot_celsius": 12}}
    scripted.answers["clocks.get"] = [reading]
    appliance.command("engine.pin")
    expect(clocks).to_contain_text("At 12 °C")
    del scripted.answers["clocks.get"]
    after = appliance.command("clocks.set", policy="always", fixed_mhz={})
    scripted.tell(scripted.asked[0]["id"], {"success": True, "result": after})
    expect(clocks.get_by_role("status")).to_have_text("Raised now")
    appliance.command("clocks.set", policy=before["policy"], fixed_mhz=before["fixed_mhz"])
    appliance.command("engine.unpin")
    expect(clocks.get_by_role("status")).to_have_text("Not raised now")


def test_the_doctor_says_what_is_wrong_and_how_to_mend_it(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "board")
    doctor = card(page, "Doctor")
    expect(doctor.get_by_role("status")).to_contain_text("as of")
    findings = stage.appliance.command("doctor.run")["findings"]
    wrong = [finding for finding in findings if finding["level"] != "ok"]
    for finding in wrong:
        expect(doctor).to_contain_text(finding["message"])
        if finding["fix"]:
            expect(doctor).to_contain_text(finding["fix"])
    doctor.get_by_role("button", name="Check again").click()
    expect(doctor.get_by_role("status")).to_contain_text("as of")


def test_the_machine_is_described(page: Page, stage: Stage) -> None:
    sign_in(page, stage.appliance, "board")
    machine = card(page, "Machine")
    for said in ("Orange Pi 5 Plus", "rk3588", "rknpu 0.9.8", "Armbian 25.5.1 bookworm"):
        expect(machine).to_contain_text(said)


def test_the_engine_is_paused_resumed_restarted_unloaded_and_loaded(page: Page, shared: Appliance) -> None:
    sign_in(page, shared, "board")
    engine = card(page, "Engine")
    for button, said in [("Pause", "Paused"), ("Resume", "Ready"), ("Unload", "Not loaded"), ("Load", "Ready")]:
        engine.get_by_role("button", name=button, exact=True).click()
        expect(state(page)).to_contain_text(said)
    before = shared.command("engine.get")["worker_pid"]
    engine.get_by_role("button", name="Restart").click()
    until(page, lambda: shared.command("engine.get")["worker_pid"] not in (None, before))
    shared.wait_for_state("ready")
    expect(card(page, "What happened").get_by_role("listitem").first).to_contain_text("Ready")
    expect(state(page)).to_contain_text("Ready")


def test_what_came_of_a_button_stays_whatever_is_read_meanwhile(page: Page, shared: Appliance) -> None:
    scripted = answer(page, {"engine.history": [], "engine.pause": [refusal("unauthorized", "It is not yours.")]})
    sign_in(page, shared, "board")
    card(page, "Engine").get_by_role("button", name="Pause", exact=True).click()
    alert = page.locator("#board").get_by_role("alert")
    expect(alert).to_contain_text("It is not yours.")
    asked = [frame["id"] for frame in scripted.asked if frame["type"] == "engine.history"]
    history = {"success": True, "result": {"events": [{"time_s": 1_700_000_000, "state": "ready"}]}}
    scripted.answers["engine.history"] = [history]
    scripted.tell(asked[-1], history)
    expect(card(page, "What happened").get_by_role("listitem")).to_have_count(1)
    expect(alert).to_contain_text("It is not yours.")


@pytest.mark.timeout(900)  # it measures for seconds, and for minutes where the machine has other things to do
def test_the_selftest_is_run_and_reports(page: Page, shared: Appliance) -> None:
    sign_in(page, shared, "board")
    selftest = card(page, "Selftest")
    selftest.get_by_role("button", name="Run").click()
    expect(selftest.locator(".report")).to_have_text(re.compile(r"\S"), timeout=800_000)


def test_a_crash_is_told_with_its_reason_and_the_last_lines_and_markup_stays_text(
    page: Page, scripted: ScriptedAppliance
) -> None:
    markup = "<img src=x onerror='window.hit = true'>"
    sign_in(page, scripted, "board")
    scripted.script(prints=markup, fault={"when": "prefill", "what": "segv"})
    scripted.request("POST", "/v1/completions", {"prompt": "x"})
    scripted.script(prints=markup)
    happened = card(page, "What happened")
    expect(happened).to_contain_text("engine_crashed")
    happened.get_by_text("last line").first.click()
    expect(happened).to_contain_text(markup)
    card(page, "Log of the engine").get_by_role("button", name="Read").click()
    expect(card(page, "Log of the engine")).to_contain_text(markup)
    assert page.locator("main img").count() == 0
    assert page.evaluate("window.hit") is None
    page.close()  # before the daemon ends, which it would complain of


def test_a_problem_of_the_engine_is_shown_with_what_to_do(page: Page, stage: Stage) -> None:
    problem = {"code": "npu_wedged", "message": "The NPU hangs.", "advice": "Restart the board.", "detail": {}}
    engine: Any = stage.appliance.command("engine.get")
    scripted = answer(page, {})
    scripted.replace["engine.changed"] = {
        **engine, "type": "engine.changed", "topic": "engine", "state": "failed", "problem": problem, "model": None,
    }  # fmt: skip
    page.goto(f"http://rock5.local:{stage.appliance.port}/#token={stage.appliance.token}")
    expect(state(page)).to_contain_text("Failed")
    expect(page.locator("#complete").get_by_role("alert")).to_contain_text("The NPU hangs. Restart the board.")
    page.get_by_role("navigation").get_by_role("link", name="Board").click()
    expect(card(page, "Engine").get_by_role("alert")).to_have_text("The NPU hangs. Restart the board. npu_wedged")
