"""Where things are: the state directory, the configuration file, the web files, the bundled models."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rockfill.errors import Code, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGED_CONFIG = Path("/etc/rockfill/config.toml")
PACKAGED_STATE = Path("/var/lib/rockfill")
PACKAGED_WEB = Path("/usr/share/rockfill/web")
PACKAGED_MODELS = Path("/usr/share/rockfill/models")

_PACKAGE = Path(__file__).parent


def state_dir(override: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """The state directory: `override`, ``ROCKFILL_STATE_DIR``, the one of the installed service, else XDG's."""
    chosen = override or environment.get("ROCKFILL_STATE_DIR")
    if chosen:
        return Path(chosen).absolute()
    if _checkout() is None and PACKAGED_STATE.is_dir():
        return PACKAGED_STATE
    xdg = environment.get("XDG_STATE_HOME")
    base = Path(xdg) if xdg else Path(environment.get("HOME") or "/").expanduser() / ".local/state"
    return base / "rockfill"


def config_file(override: str | None) -> Path | None:
    """The configuration file to read: `override` whether it is there or not, else the installed one if it is."""
    if override:
        return Path(override)
    return PACKAGED_CONFIG if _checkout() is None and PACKAGED_CONFIG.is_file() else None


def web_root(override: Path | None = None) -> Path:
    """The directory with ``templates/`` and ``static/``.

    An override stands alone; else the checkout's, if this is one, else the installed one.
    """
    checkout = _checkout()
    if override is not None:
        candidates = [override]
    elif checkout is not None:
        candidates = [checkout / "web"]
    else:
        candidates = [PACKAGED_WEB]
    for candidate in candidates:
        if (candidate / "templates").is_dir() and (candidate / "static").is_dir():
            return candidate
    tried = ", ".join(str(candidate) for candidate in candidates)
    raise Problem(
        Code.WEB_ROOT_MISSING,
        f"The files of the web page were not found (tried: {tried}).",
        "Reinstall the package, or run from a complete checkout.",
    )


def bundled_models() -> Path:
    """The directory of the models that ship with Rockfill, one directory each; it need not be there."""
    bundled = _PACKAGE / "bundled"
    return bundled if bundled.is_dir() else PACKAGED_MODELS


def _checkout() -> Path | None:
    """The root of the source checkout that this package runs from, None if it is installed."""
    root = _PACKAGE.parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "web" / "templates").is_dir() else None
