from __future__ import annotations

import re
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from rockfill.config import Address, Config, Hub, Rkllm, load, parse_address, reload
from rockfill.errors import Code, Problem

EXAMPLE = Path(__file__).parents[2] / "packaging" / "rockfill.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def mistakes(file: Path) -> list[str]:
    """What is wrong with `file`, its path taken away."""
    with pytest.raises(Problem) as caught:
        load(file)
    assert caught.value.code is Code.CONFIG_INVALID
    found: list[str] = caught.value.detail["mistakes"]
    for mistake in found:
        assert mistake.startswith(f"{file}: ")
        assert mistake in caught.value.message
    return [mistake.removeprefix(f"{file}: ") for mistake in found]


def test_no_file_and_an_empty_one_are_the_defaults(file: Path) -> None:
    file.touch()
    assert load(None) == load(file) == Config()


def test_what_a_file_says_is_taken(file: Path) -> None:
    file.write_text('[server]\nlisten = "[::]:80"\nallowed_hosts = ["a", "b"]\n[engine]\nload_timeout_s = 7\n')
    config = load(file)
    assert config.server.allowed_hosts == ("a", "b")
    assert parse_address(config.server.listen) == Address("::", 80)
    assert config.engine.load_timeout_s == 7.0
    assert config.completion == Config().completion


def test_all_mistakes_are_told_at_once_with_file_and_key(file: Path) -> None:
    file.write_text('[server]\nlisten = "nowhere"\n[engine]\nload_timeout_s = "long"\nhello_timeout_s = 0\n')
    assert mistakes(file) == [
        "engine.hello_timeout_s: must be at least 0.05",
        "engine.load_timeout_s: must be a number",
        'server.listen: must be HOST:PORT, such as "127.0.0.1:8012" or "[::1]:8012"',
    ]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[engine]\nlaod_timeout_s = 1", "engine.laod_timeout_s: is not known"),
        ("[sever]", "sever: is not known"),
        ("listen = 1", "listen: is not known"),
        ("server = 3", "server: must be an object"),
        ("[server]\nlisten = 8012", "server.listen: must be a string"),
        ("[engine]\nload_timeout_s = inf", "engine.load_timeout_s: must be a finite number"),
        ("[engine]\nload_timeout_s = 2026-11-24", "engine.load_timeout_s: must be a number"),
        ("[completion]\nmax_queue = -1", "completion.max_queue: must be at least 0"),
        ("[completion]\nmax_queue = 99999999999999999999", "completion.max_queue: must fit in 64 bits"),
    ],
)
def test_each_mistake_is_named_by_its_key(file: Path, text: str, mistake: str) -> None:
    file.write_text(text)
    assert mistakes(file) == [mistake]


@pytest.mark.parametrize(
    "text", ["[server", "[server]\nlisten = ", "a = 1\na = 2", "n = " + "9" * 5000, "a = " + "[" * 10_000]
)
def test_what_is_not_toml_is_told_as_such(file: Path, text: str) -> None:
    file.write_text(text)
    [mistake] = mistakes(file)
    assert mistake.startswith("not TOML: ")


def test_what_can_not_be_read_is_told_as_such(file: Path, tmp_path: Path) -> None:
    assert mistakes(file) == ["cannot be read: No such file or directory"]
    assert mistakes(tmp_path) == ["cannot be read: Is a directory"]
    file.write_bytes(b"\xff")
    assert mistakes(file) == ["cannot be read: it is not UTF-8"]


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8012", "127.0.0.1", 8012),
        ("[::1]:80", "::1", 80),
        ("[::]:0", "::", 0),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, host: str, port: int) -> None:
    assert parse_address(text) == Address(host, port)
    assert str(Address(host, port)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "8012",
        "localhost",
        "localhost:",
        ":8012",
        "[]:80",
        "::1:80",
        "[::1]",
        "[::1:80",
        "a:65536",
        "a:-1",
        "a:８",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize(
    ("host", "everywhere"), [("0.0.0.0", True), ("::", True), ("127.0.0.1", False), ("::1", False), ("board", False)]
)
def test_whether_an_address_is_everywhere_is_known(host: str, everywhere: bool) -> None:
    assert Address(host, 1).everywhere is everywhere


# ---- the example


def _in_lists(value: Any) -> Any:
    """As TOML has it: no tuples."""
    if isinstance(value, dict):
        return {key: _in_lists(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value


def test_the_example_as_it_is_shipped_changes_nothing() -> None:
    assert load(EXAMPLE) == Config()


def test_the_example_shows_every_key_with_its_default(file: Path) -> None:
    switched_on = re.sub(r"^#(?=\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert tomllib.loads(switched_on) == _in_lists(asdict(Config()))
    file.write_text(switched_on)
    assert load(file) == Config()


def test_the_example_explains_every_key() -> None:
    """The lines before a key, or before those that stand together with it, are prose."""
    blocks = [block.splitlines() for block in EXAMPLE.read_text().split("\n\n")]
    for block in blocks:
        keys = [line for line in block if re.match(r"#\w+ = ", line)]
        prose = [line for line in block if line.startswith("# ")]
        assert prose or not keys, keys


def test_a_reload_takes_up_what_it_can_and_keeps_the_rest_as_it_was() -> None:
    before = Config()
    after = replace(
        before,
        server=replace(before.server, listen="0.0.0.0:80", allowed_hosts=("a",)),
        engine=replace(before.engine, ping_s=7.0, threads=3),
        rkllm=replace(before.rkllm, embed_flash=False),
    )
    reloaded = reload(before, after)
    assert reloaded.at_once == ("server.allowed_hosts", "engine.ping_s")
    assert reloaded.at_next_load == ("engine.threads", "rkllm.embed_flash")
    assert reloaded.at_restart == ("server.listen",)
    assert reloaded.config == replace(after, server=replace(after.server, listen=before.server.listen))
    assert reload(reloaded.config, after).at_restart == ("server.listen",)  # still not in force
    assert str(reload(after, after)) == "nothing has changed"


def test_the_environment_names_the_hub_before_the_file_does_and_the_library_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HF_ENDPOINT", "ROCKFILL_RKLLM_LIBRARY"):
        monkeypatch.delenv(name, raising=False)
    assert (Hub("http://file").endpoint_in_use, Rkllm().library_in_use) == ("http://file", "")
    monkeypatch.setenv("HF_ENDPOINT", "http://environment")
    monkeypatch.setenv("ROCKFILL_RKLLM_LIBRARY", "/environment")
    assert Hub("http://file").endpoint_in_use == "http://environment"
    assert [Rkllm(library).library_in_use for library in ("", "/file")] == ["/environment", "/file"]
