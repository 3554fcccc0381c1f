"""The configuration: TOML into frozen dataclasses, every mistake in it reported at once.

`packaging/rockfill.toml` is this file's table with comments; a test keeps the two equal. Choices made in the page go
to the state directory, never here.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from rockfill.decode import DecodeError, Range, decode
from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Seconds = Annotated[float, Range(0.05, 86400)]


@dataclass(frozen=True, slots=True)
class Server:
    """`tls_cert` and `tls_key` are paths, both or neither."""

    listen: str = "127.0.0.1:8012"
    allowed_hosts: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    tls_cert: str = ""
    tls_key: str = ""
    max_connections_per_address: Annotated[int, Range(1, 100_000)] = 128


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read and complete without a token."""

    insecure_lan: bool = False
    tokenless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """Deadlines for the worker. Their reasons stand in the example file."""

    hello_timeout_s: Seconds = 20.0
    load_timeout_s: Seconds = 60.0
    accepted_timeout_s: Seconds = 1.0
    first_token_timeout_s: Seconds = 20.0
    token_gap_timeout_s: Seconds = 20.0
    abort_timeout_s: Seconds = 30.0
    stop_timeout_s: Seconds = 5.0
    ping_s: Seconds = 30.0
    pong_timeout_s: Seconds = 5.0
    idle_unload_s: Annotated[float, Range(0, 604800)] = 0.0
    recycle_growth_mib: Annotated[int, Range(0, 65536)] = 1024
    switch_idle_s: Annotated[float, Range(0, 86400)] = 60.0
    threads: Annotated[int, Range(0, 256)] = 0


@dataclass(frozen=True, slots=True)
class Rkllm:
    """The NPU engine. `library` "" means: the best one that is installed."""

    library: str = ""
    context_tokens: Annotated[int, Range(256, 16384)] = 2048
    base_domain_id: Annotated[int, Range(0, 15)] = 0
    embed_flash: bool = True
    log_prompts: bool = False

    @property
    def library_in_use(self) -> str:
        """What is configured goes before `ROCKFILL_RKLLM_LIBRARY`; "" where neither names one."""
        return self.library or os.environ.get("ROCKFILL_RKLLM_LIBRARY", "")


@dataclass(frozen=True, slots=True)
class Completion:
    first_token_target_s: Annotated[float, Range(0.05, 60)] = 1.0
    max_queue: Annotated[int, Range(0, 10_000)] = 64


class ClockPolicy(StrEnum):
    """When clocks are raised."""

    AUTO = "auto"
    LOADED = "loaded"
    ALWAYS = "always"
    OFF = "off"


class ClockDevice(StrEnum):
    NPU = "npu"
    CPU = "cpu"
    DDR = "ddr"
    GPU = "gpu"


@dataclass(frozen=True, slots=True)
class Clocks:
    """How the board's clocks are set. Their reasons stand in the example file."""

    policy: ClockPolicy = ClockPolicy.AUTO
    idle_s: Annotated[float, Range(0, 86400)] = 30.0
    devices: tuple[ClockDevice, ...] = (ClockDevice.NPU, ClockDevice.CPU, ClockDevice.DDR)
    fixed_mhz: dict[str, Annotated[int, Range(1, 10_000)]] = field(default_factory=dict)
    hot_celsius: Annotated[float, Range(40, 110)] = 85.0


@dataclass(frozen=True, slots=True)
class Hub:
    """Where models and runtimes are fetched from; `bandwidth_limit_mb_s` 0 is no limit."""

    endpoint: str = "https://huggingface.co"
    runtimes: str = "https://github.com/airockchip/rknn-llm"
    bandwidth_limit_mb_s: Annotated[float, Range(0, 100_000)] = 0.0

    @property
    def endpoint_in_use(self) -> str:
        """`HF_ENDPOINT` goes before what is configured, as with the Hub's own tools."""
        return os.environ.get("HF_ENDPOINT") or self.endpoint


@dataclass(frozen=True, slots=True)
class Config:
    server: Server = field(default_factory=Server)
    access: Access = field(default_factory=Access)
    engine: Engine = field(default_factory=Engine)
    rkllm: Rkllm = field(default_factory=Rkllm)
    completion: Completion = field(default_factory=Completion)
    hub: Hub = field(default_factory=Hub)
    clocks: Clocks = field(default_factory=Clocks)


# When a reload takes up a change. A key or section that is not here waits for a restart: what it says went into sockets
# and services that are built once.
AT_ONCE = frozenset({"engine", "completion", "server.allowed_hosts"})
AT_NEXT_LOAD = frozenset(
    {"engine.threads", "rkllm.context_tokens", "rkllm.base_domain_id", "rkllm.embed_flash", "rkllm.log_prompts"}
)


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload comes to: the configuration in force from then on, and the keys that changed."""

    config: Config
    at_once: tuple[str, ...]
    at_next_load: tuple[str, ...]
    at_restart: tuple[str, ...]

    def __str__(self) -> str:
        """For people: ``engine.ping_s is in force; rkllm.embed_flash at the next load of a model``."""
        parts = [
            f"{', '.join(keys)} {when}"
            for keys, when in (
                (self.at_once, "in force now"),
                (self.at_next_load, "from the next load of a model on"),
                (self.at_restart, "only after a restart, as what they say is built once"),
            )
            if keys
        ]
        return "; ".join(parts) or "nothing has changed"


def reload(before: Config, after: Config) -> Reload:
    """Take up of `after` what can be taken up while running; the rest stays as in `before`."""
    sections: dict[str, Any] = {}
    changed: dict[str, list[str]] = {"at_once": [], "at_next_load": [], "at_restart": []}
    for section in fields(Config):
        old, new = getattr(before, section.name), getattr(after, section.name)
        taken_up: dict[str, Any] = {}
        for key in fields(old):
            value, name = getattr(new, key.name), f"{section.name}.{key.name}"
            if value == getattr(old, key.name):
                continue
            names = {section.name, name}
            when = "at_next_load" if names & AT_NEXT_LOAD else "at_once" if names & AT_ONCE else "at_restart"
            changed[when].append(name)
            if when != "at_restart":
                taken_up[key.name] = value
        sections[section.name] = replace(old, **taken_up)
    return Reload(Config(**sections), **{when: tuple(keys) for when, keys in changed.items()})


class Settings:
    """The configuration in force, for those who look at it again and again."""

    def __init__(self, config: Config) -> None:
        self.config = config


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Written ``HOST:PORT``, an IPv6 host in brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def everywhere(self) -> bool:
        """Whether this is every address of the machine."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """``HOST:PORT`` as an `Address`; ValueError with a sentence where it is none."""
    host, separator, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    if not separator or not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise ValueError('must be HOST:PORT, such as "127.0.0.1:8012" or "[::1]:8012"')
    return Address(host, int(port))


def parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """``192.168.1.0/24``, or one address; ValueError with a sentence where it is none."""
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f'must be a network such as "192.168.1.0/24" ({error})') from None


def load(path: Path | None) -> Config:
    """The configuration in `path`, or the defaults for None.

    Every mistake is named, with file and key, in one `config_invalid` problem; keys that are not known are refused,
    as a misspelt key would otherwise be a setting that silently does nothing.
    """
    if path is None:
        return Config()
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise _invalid([f"{path}: cannot be read: {reason}"]) from None
    try:
        value = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # beside TOMLDecodeError: integers and nesting without end
        raise _invalid([f"{path}: not TOML: {error}"]) from None
    mistakes: list[str] = []
    config = Config()
    try:
        config = decode(Config, value, unknown="refuse")
    except DecodeError as error:
        mistakes += error.errors
    mistakes += _server_mistakes(value)
    if mistakes:
        raise _invalid([f"{path}: {mistake}" for mistake in mistakes])
    return config


def _server_mistakes(value: dict[str, object]) -> list[str]:
    """What is wrong with the values of [server] and [access] beyond their types, which were reported already."""
    server, access = (table if isinstance(table := value.get(name), dict) else {} for name in ("server", "access"))
    mistakes = []
    listen = server.get("listen")
    if isinstance(listen, str):
        mistakes += _mistake("server.listen", parse_address, listen)
    for key, networks in (("server.trusted_proxies", server), ("access.tokenless", access)):
        entries = networks.get(key.partition(".")[2])
        for index, entry in enumerate(entries if isinstance(entries, list) else []):
            if isinstance(entry, str):
                mistakes += _mistake(f"{key}[{index}]", parse_network, entry)
    if bool(server.get("tls_cert")) != bool(server.get("tls_key")):
        mistakes.append("server.tls_key: goes with tls_cert; both are needed")
    return mistakes


def _mistake(key: str, parse: Callable[[str], object], text: str) -> list[str]:
    try:
        parse(text)
    except ValueError as error:
        return [f"{key}: {error}"]
    return []


def _invalid(mistakes: list[str]) -> Problem:
    return Problem(
        Code.CONFIG_INVALID,
        "The configuration has mistakes:\n" + "\n".join(f"  {mistake}" for mistake in mistakes),
        "Correct them; `rockfill config check` shows what is left.",
        mistakes=mistakes,
    )
