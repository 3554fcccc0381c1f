"""A network that needs no token, by the configuration: its people read and complete, and may sign in for more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import expect

from tests.appliance import Appliance
from tests.browser.driving import SOMETHING, address, ask_at_the_end_of, ghost, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Page


@pytest.fixture
def open_to_this_network(tmp_path: Path) -> Iterator[Appliance]:
    config = tmp_path / "config.toml"
    config.write_text('[access]\ntokenless = ["127.0.0.0/8"]\n')
    running = Appliance(tmp_path / "state", ["--config", str(config)])
    running.start()
    yield running
    running.stop()


def test_a_guest_completes_is_told_so_and_signs_in_for_more(page: Page, open_to_this_network: Appliance) -> None:
    appliance = open_to_this_network
    page.goto(address(appliance))
    expect(state(page)).to_contain_text("Ready")
    expect(page.get_by_text("Whoever is on this network can use this appliance without a token")).to_be_visible()
    ask_at_the_end_of(page, "def add(a, b):\n    return ")
    expect(ghost(page)).to_have_text(SOMETHING)
    page.goto(f"{address(appliance)}#board")
    page.get_by_role("region", name="Engine").get_by_role("button", name="Pause").click()
    expect(page.locator("#board").get_by_role("alert").first).to_contain_text("unauthorized")
    page.get_by_role("button", name="Sign in").click()
    page.locator("#token").fill(appliance.token)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    page.get_by_role("region", name="Engine").get_by_role("button", name="Pause").click()
    expect(state(page)).to_contain_text("Paused")
    page.close()
