from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.hub import HubServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="package")
def server() -> Iterator[HubServer]:
    with HubServer() as running:
        yield running


@pytest.fixture
def hub(server: HubServer) -> HubServer:
    """A stand-in that has forgotten what it was told before."""
    server.heal()
    server.slow_down(0)
    server.forget()
    return server
