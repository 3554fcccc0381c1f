"""Who listens on a port, asked of this machine."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from rockfill.hardware.ports import listener_on

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_listener_is_named(family: socket.AddressFamily) -> None:
    with socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family) as server:
        port = server.getsockname()[1]
        assert (listener_on(port) or "").endswith(f"(process {os.getpid()})")
    assert listener_on(port) is None


def test_who_only_talks_on_a_port_does_not_listen_on_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert listener_on(client.getsockname()[1]) is None


def test_where_the_kernel_tells_nothing_nobody_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCKFILL_SYSFS_ROOT", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert listener_on(server.getsockname()[1]) is None
