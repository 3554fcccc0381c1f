from __future__ import annotations

from pathlib import Path

import pytest

from rockfill import paths
from rockfill.errors import Code, Problem

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("override", "environment", "expected"),
    [
        ("/given", {"ROCKFILL_STATE_DIR": "/environment", "XDG_STATE_HOME": "/xdg", "HOME": "/users/me"}, "/given"),
        (None, {"ROCKFILL_STATE_DIR": "/environment", "XDG_STATE_HOME": "/xdg", "HOME": "/users/me"}, "/environment"),
        (None, {"XDG_STATE_HOME": "/xdg", "HOME": "/users/me"}, "/xdg/rockfill"),
        (None, {"XDG_STATE_HOME": "", "HOME": "/users/me"}, "/users/me/.local/state/rockfill"),
        ("", {"ROCKFILL_STATE_DIR": "", "HOME": "/users/me"}, "/users/me/.local/state/rockfill"),
        (None, {}, "/.local/state/rockfill"),
    ],
)
def test_the_nearest_word_on_the_state_directory_counts(
    override: str | None, environment: dict[str, str], expected: str
) -> None:
    assert paths.state_dir(override, environment) == Path(expected)


def test_a_relative_state_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.state_dir("state", {}) == tmp_path / "state"


def test_from_a_checkout_only_a_given_configuration_is_read() -> None:
    assert paths.config_file(None) is None
    assert paths.config_file("/nowhere.toml") == Path("/nowhere.toml")


def test_the_web_files_of_a_checkout_are_its_own() -> None:
    assert paths.web_root() == ROOT / "web"


def test_a_given_web_root_stands_alone(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        paths.web_root(tmp_path)
    assert caught.value.code is Code.WEB_ROOT_MISSING
    assert f"(tried: {tmp_path})" in caught.value.message
    for name in ("templates", "static"):
        (tmp_path / name).mkdir()
    assert paths.web_root(tmp_path) == tmp_path


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the package lay in a system's site-packages, and the system's directories below `tmp_path`."""
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "usr/lib/python3/dist-packages/rockfill")
    for name in ("PACKAGED_CONFIG", "PACKAGED_STATE", "PACKAGED_WEB", "PACKAGED_MODELS"):
        monkeypatch.setattr(paths, name, tmp_path / str(getattr(paths, name)).lstrip("/"))
    return tmp_path


def test_an_installed_package_uses_the_system_s_places_where_they_are(installed: Path) -> None:
    assert paths.config_file(None) is None
    assert paths.state_dir(None, {"HOME": "/users/me"}) == Path("/users/me/.local/state/rockfill")
    with pytest.raises(Problem) as caught:
        paths.web_root()
    assert str(installed / "usr/share/rockfill/web") in caught.value.message

    for name in (
        "etc/rockfill",
        "var/lib/rockfill",
        "usr/share/rockfill/web/templates",
        "usr/share/rockfill/web/static",
    ):
        (installed / name).mkdir(parents=True)
    (installed / "etc/rockfill/config.toml").touch()
    assert paths.config_file(None) == installed / "etc/rockfill/config.toml"
    assert paths.state_dir(None, {"HOME": "/users/me"}) == installed / "var/lib/rockfill"
    assert paths.web_root() == installed / "usr/share/rockfill/web"


def test_the_bundled_models_are_a_package_of_their_own_where_rockfill_is_installed(installed: Path) -> None:
    assert paths.bundled_models() == installed / "usr/share/rockfill/models"


def test_the_bundled_models_are_there() -> None:
    assert (paths.bundled_models() / "rockfill-tiny" / "manifest.json").is_file()
