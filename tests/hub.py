"""A pytest plugin: the stand-in Hub, one process for all the tests of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.hub import HubServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def hub_process() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture
def hub(hub_process: HubServer) -> HubServer:
    """A stand-in that behaves, and has forgotten what it was told and asked before."""
    hub_process.heal()
    hub_process.slow_down(0)
    hub_process.forget()
    return hub_process
