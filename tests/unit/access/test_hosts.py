from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.access.hosts import HostNames, host_name

if TYPE_CHECKING:
    import ipaddress

NAMES = HostNames("Board.Lan", ["code.example.org."])


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8012",
        "LOCALHOST",
        "board.lan",
        "board",
        "Board:80",
        "board.local",
        "anything.local:8012",
        "deep.down.local",
        "x.localhost",
        "board.lan.",
        "code.example.org",
        "code.example.org.:443",
        "127.0.0.1",
        "192.168.1.7:8012",
        "[::1]",
        "[::1]:8012",
        "[fe80::1%eth0]:80",
        "  board  ",
    ],
)
def test_names_that_nobody_else_can_claim_are_allowed(host: str) -> None:
    assert NAMES.allows(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        ":80",
        ".",
        "evil.example",
        "evil.example:8012",
        "board.lan.evil.example",
        "code.example.org.evil.example",
        "notboard",
        "lan",
        "local",
        "evillocal",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "1.2.3",
        "0x7f.0.0.1",
        "::1",
        "[::1",
        "[::1]evil.example",
        "[evil.example]",
        "[]",
        "evil.example,localhost",
        "evil.example@localhost",
        "evil.example/localhost",
        "localhost@evil.example",
    ],
)
def test_every_other_name_may_be_somebody_else_s(host: str) -> None:
    assert not NAMES.allows(host)


@given(st.text())
def test_any_header_is_answered(host: str) -> None:
    assert NAMES.allows(host) in (True, False)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6), st.integers(0, 65535))
def test_every_address_is_allowed_with_and_without_port(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    literal = f"[{address}]" if address.version == 6 else str(address)
    assert NAMES.allows(literal)
    assert NAMES.allows(f"{literal}:{port}")


@pytest.mark.parametrize(
    ("header", "name"),
    [("Board:80", "board"), ("[::1]:80", "::1"), ("a.b.", "a.b"), ("", None), ("[::1", None), ("[::1]x", None)],
)
def test_the_name_is_what_stands_before_the_port(header: str, name: str | None) -> None:
    assert host_name(header) == name
