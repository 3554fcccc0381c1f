from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rockfill.access.connections import Connections
from rockfill.access.networks import Networks, neighbourhood


def networks(*proxies: str, tokenless: tuple[str, ...] = (), insecure_lan: bool = False) -> Networks:
    return Networks(proxies, tokenless, insecure_lan=insecure_lan)


@pytest.mark.parametrize(
    ("peer", "said", "client"),
    [
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("127.0.0.1", ["6.6.6.6", "203.0.113.7"], "203.0.113.7"),  # what the client itself claimed does not count
        ("127.0.0.1", ["203.0.113.7", "10.0.0.5"], "203.0.113.7"),  # a chain of two proxies
        ("10.0.0.5", ["203.0.113.7", "127.0.0.1"], "203.0.113.7"),
        ("192.168.1.9", ["203.0.113.7"], "192.168.1.9"),  # nobody whom we trust says so
        ("127.0.0.1", [" 203.0.113.7 "], "203.0.113.7"),
        ("127.0.0.1", ["unknown"], "unknown"),
        (None, ["203.0.113.7"], ""),
    ],
)
def test_the_client_is_whom_trusted_proxies_speak_for(peer: str | None, said: list[str], client: str) -> None:
    assert networks("127.0.0.1", "10.0.0.0/24").client(peer, said) == client


@pytest.mark.parametrize(
    ("client", "free"),
    [
        ("192.168.1.7", True),
        ("10.1.2.3", True),
        ("127.0.0.1", False),  # perhaps a proxy that nobody told us of
        ("::1", False),
        ("::ffff:127.0.0.1", False),
        ("fe80::1%eth0", True),
        ("fd00::7", True),
        ("::ffff:192.168.1.7", True),
        ("8.8.8.8", False),
        ("2606:4700::1", False),
        ("0.0.0.0", False),
        ("", False),
        ("unknown", False),
        ("192.168.1.7.evil.example", False),
    ],
)
def test_an_insecure_lan_is_of_private_addresses(client: str, *, free: bool) -> None:
    assert networks(insecure_lan=True).needs_no_token(client) == free
    assert not networks().needs_no_token(client)


@pytest.mark.parametrize(
    ("client", "free"), [("192.168.1.20", True), ("192.168.1.21", False), ("10.0.0.9", True), ("10.0.1.9", False)]
)
def test_tokenless_networks_are_those_that_were_named(client: str, *, free: bool) -> None:
    open_to = networks(tokenless=("192.168.1.20", "10.0.0.0/24"))
    assert open_to.needs_no_token(client) == free
    assert open_to.open_to_some
    assert not networks("10.0.0.0/24").open_to_some


@pytest.mark.parametrize("proxy", ["192.168.1.5", "10.0.0.1", "127.0.0.1"])
def test_a_trusted_proxy_is_no_client(proxy: str) -> None:
    """It may ask for anybody, and did not say for whom."""
    open_to = Networks((proxy,), ("10.0.0.0/24", "127.0.0.1"), insecure_lan=True)
    assert not open_to.needs_no_token(open_to.client(proxy, []))
    assert open_to.needs_no_token(open_to.client(proxy, ["192.168.1.7"]))


@given(st.text())
def test_any_text_is_some_neighbourhood(text: str) -> None:
    assert isinstance(neighbourhood(text), str)
    assert networks(insecure_lan=True, tokenless=("10.0.0.0/8",)).needs_no_token(text) in (True, False)


def test_an_address_has_so_many_connections_and_no_more() -> None:
    connections = Connections(networks(), 2, 100)
    assert [connections.open("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert connections.open("10.0.0.2")
    connections.close("10.0.0.1")
    assert connections.open("10.0.0.1")
    assert connections.total == 3


def test_an_ipv6_host_is_one_however_many_addresses_it_takes() -> None:
    connections = Connections(networks(), 1, 100)
    assert [connections.open(f"2001:db8::{number:x}") for number in range(1, 4)] == [True, False, False]


def test_a_trusted_proxy_has_as_many_as_there_are() -> None:
    connections = Connections(networks("127.0.0.1"), 1, 3)
    assert [connections.open("127.0.0.1") for _ in range(4)] == [True, True, True, False]


def test_addresses_that_have_left_are_forgotten() -> None:
    connections = Connections(networks(), 1, 100)
    for number in range(100):
        address = f"10.0.0.{number}"
        assert connections.open(address)
        assert not connections.open(address)
        connections.close(address)
    assert len(connections._open) == 0
