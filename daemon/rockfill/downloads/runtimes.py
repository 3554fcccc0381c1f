"""Rockchip's runtime: which are here, which one a model is run with, installing and removing them."""

from __future__ import annotations

import asyncio
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING

from rockfill.compat.verdict import RuntimeChoice, choose_runtime
from rockfill.disk import refusals_told
from rockfill.downloads.importing import copy_synced
from rockfill.downloads.plan import RUNTIME, RUNTIME_LICENCE, plan_runtime
from rockfill.errors import Code, Problem
from rockfill.store.runtimes import find_runtimes, inspect
from rockfill.store.shelf import slug_of
from rockfill.unbroken import to_the_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from rockfill.downloads.jobs import Downloads, Job
    from rockfill.state import StateDir
    from rockfill.store.runtimes import FoundRuntime
    from rockfill.store.shelf import Shelf

# What runs the models that there are most of; see `compat.verdict`.
DEFAULT_VERSION = "1.2.3"
AUTOMATIC = "auto"


class RuntimeLibrary:
    """The runtimes of this machine. What is found is remembered until `refresh`."""

    def __init__(
        self,
        shelf: Shelf,
        downloads: Downloads,
        state: StateDir,
        *,
        configured: str,
        endpoint: str,
        system: Iterable[Path],
        arrived: Callable[[], None] = lambda: None,
    ) -> None:
        """`configured` is the library that the configuration names ("" for none), and then the only one that is run.

        `arrived` is called when there is another one.
        """
        self._arrived = arrived
        self._shelf = shelf
        self._downloads = downloads
        self._state = state
        self._configured = configured
        self._endpoint = endpoint
        self._system = tuple(system)
        self._found: tuple[FoundRuntime, ...] | None = None
        self._looking = asyncio.Lock()  # who looks later knows better
        self._pinning = asyncio.Lock()
        self._pinned = state.choices().runtime

    @property
    def default_version(self) -> str:
        return DEFAULT_VERSION

    async def refresh(self) -> None:
        """Look at the disk again."""
        async with self._looking:
            self._found = await asyncio.to_thread(self._look)

    def _look(self) -> tuple[FoundRuntime, ...]:
        return find_runtimes(self._configured, self._shelf.root, self._system)

    @property
    def found(self) -> tuple[FoundRuntime, ...]:
        """Before the first `refresh` this blocks for as long as reading some libraries takes."""
        if self._found is None:
            self._found = self._look()
        return self._found

    @property
    def pinned(self) -> str | None:
        """The version that somebody chose for all models."""
        return self._pinned

    @property
    def usable_versions(self) -> tuple[str, ...]:
        return tuple(runtime.version for runtime in self._usable if runtime.version is not None)

    @property
    def _usable(self) -> list[FoundRuntime]:
        only = [runtime for runtime in self.found if runtime.origin == "configured"]
        return [runtime for runtime in only or self.found if runtime.problem is None]

    def choice_for(self, converter_version: str | None) -> RuntimeChoice | None:
        """Which runtime a file of that converter is run with; None if no known one can."""
        configured = next((runtime for runtime in self.found if runtime.origin == "configured"), None)
        if configured is not None:
            version = configured.version or "of unknown version"
            return RuntimeChoice(version, installed=configured.problem is None, reason="named in the configuration")
        return choose_runtime(converter_version, self.usable_versions, self.pinned)

    def library_for(self, converter_version: str | None) -> Path:
        """The library to load a file of that converter with. Raises `runtime_missing`."""
        if self._configured:
            return next(runtime.path for runtime in self.found if runtime.origin == "configured")
        choice = self.choice_for(converter_version)
        for runtime in self._usable:
            if choice is not None and runtime.version == choice.version:
                return runtime.path
        # One whose bytes do not tell its version is better than none: the worker settles what it speaks, or refuses.
        untold = next((runtime for runtime in self._usable if runtime.version is None), None)
        if untold is not None and (choice is None or not choice.installed):
            return untold.path
        version = choice.version if choice is not None else DEFAULT_VERSION
        raise Problem(
            Code.RUNTIME_MISSING,
            "Rockchip's RKLLM runtime is not installed."
            if not self._usable
            else f"None of the runtimes here can load this model; it needs {version}.",
            f"`rockfill runtime install {version}` fetches it; "
            f"`rockfill runtime install FILE` takes a {RUNTIME} that you have.",
            version=version,
        )

    async def install(self, version: str) -> Job | None:
        """Fetch a release of the vendor's; None if it is here already."""
        plan = plan_runtime(version or DEFAULT_VERSION, self._endpoint)
        await self.refresh()
        if any(runtime.origin == "installed" and runtime.version == plan.version for runtime in self.found):
            return None
        return await self._downloads.add(plan)

    async def install_file(self, path: Path) -> str:
        """Install the library at `path`, with the licence that lies beside it, and return its version."""
        return await to_the_end(self._install_and_note(path))

    async def _install_and_note(self, path: Path) -> str:
        version = await asyncio.to_thread(self._install_file, path)
        await self.note_arrival()
        return version

    async def note_arrival(self) -> None:
        """Another runtime was put in its place."""
        await self.refresh()
        self._arrived()

    def _install_file(self, path: Path) -> str:
        identity = inspect(path)
        if identity.architecture != platform.machine():
            raise Problem(
                Code.RUNTIME_UNSUPPORTED,
                f"The library is for {identity.architecture or 'another machine'}, this is {platform.machine()}.",
                "Use the one from librkllm_api/aarch64.",
            )
        version = identity.version or f"unknown-{identity.blob_id[:8]}"
        slug = slug_of(version)
        with refusals_told(self._shelf.root):
            directory = self._shelf.staging(slug)
            files = [copy_synced(path, directory / RUNTIME)]
            licence = path.with_name(RUNTIME_LICENCE)
            if licence.is_file():
                files.append(copy_synced(licence, directory / RUNTIME_LICENCE))
            value = {"version": version, "source": str(path), "files": [asdict(file) for file in files]}
            self._shelf.publish(slug, value)
        return version

    async def use(self, version: str) -> str | None:
        """Run every model with that version from the next load on, or ("auto") with what suits each."""
        await self.refresh()
        pinned = None if version == AUTOMATIC else version
        if pinned is not None and pinned not in self.usable_versions:
            raise self._not_here(version)
        await to_the_end(self._pin(pinned))
        return pinned

    async def remove(self, version: str) -> list[str]:
        """Remove a runtime that Rockfill installed; returns what was left of its directory."""
        await self.refresh()
        runtime = next((one for one in self.found if one.version == version and one.origin == "installed"), None)
        if runtime is None:
            if version in self.usable_versions:
                raise Problem(
                    Code.NOT_REMOVABLE,
                    f"Runtime {version} was not installed by Rockfill.",
                    "Remove it where you put it: `rockfill runtime list` says where that is.",
                )
            raise self._not_here(version)
        return await to_the_end(self._remove(version, runtime.path.parent))

    async def _remove(self, version: str, directory: Path) -> list[str]:
        left = await asyncio.to_thread(self._shelf.remove, directory)
        if self.pinned == version:
            await self._pin(None)
        await self.refresh()
        return left

    async def _pin(self, version: str | None) -> None:
        async with self._pinning:
            await asyncio.to_thread(self._state.change, runtime=version)
            self._pinned = version

    def _not_here(self, version: str) -> Problem:
        here = ", ".join(self.usable_versions) or "none"
        return Problem(
            Code.NOT_FOUND,
            f'There is no runtime "{version[:50]}" here.',
            f"Here are: {here}. `rockfill runtime install {DEFAULT_VERSION}` fetches one.",
        )
