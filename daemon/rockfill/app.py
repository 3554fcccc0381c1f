"""The composition root: builds the services, gives each just what it uses, and runs them until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from rockfill import paths
from rockfill.access.hosts import HostNames
from rockfill.access.tokens import Access
from rockfill.api.commands.http import COMMANDS, CommandsOverHttp
from rockfill.api.commands.table import Dispatch
from rockfill.api.dialects.openai import OpenAI
from rockfill.api.health import Health
from rockfill.api.pages import Pages
from rockfill.api.server import Gate, Sessions, build
from rockfill.completion.service import CompletionService
from rockfill.config import Address, Config, parse_address
from rockfill.engine.machine import Timeouts
from rockfill.engine.process import Child
from rockfill.engine.supervisor import Supervisor
from rockfill.errors import Code, Problem
from rockfill.selftest.result import SelfTestResult, key_of
from rockfill.selftest.runner import SelfTest
from rockfill.store.models import Fallback, ModelStore, target_at
from rockfill.store.runtimes import find_runtime

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.config import Engine
    from rockfill.engine.process import Listener
    from rockfill.link.messages import Load
    from rockfill.state import StateDir

log = logging.getLogger(__name__)

DEFAULT_MODEL = "rockfill-tiny"
WORKER = (sys.executable, "-P", "-m", "rockfill.worker")

# How long requests in progress may go on once the daemon has been told to stop, and how long their connections.
DRAIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a start is given beside the configuration. `model` is a name, a path, or None for what was chosen."""

    config: Config
    model: str | None = None
    listen: str | None = None
    web_root: Path | None = None
    worker: Sequence[str] = WORKER


async def serve(options: Options, state: StateDir, say: Callable[[str], None]) -> None:
    """Run the appliance until SIGTERM or SIGINT.

    `say` gets lines for whoever started it; the last is the page's address. Raises the `Problem` that keeps it from
    starting; a model that can't be loaded does not.
    """
    config = options.config
    address = parse_address(options.listen or config.server.listen)
    web_root = paths.web_root(options.web_root)
    token = state.token()
    models = ModelStore([paths.bundled_models(), state.path / "models"])
    _choose(models, options.model, state.choices().model)

    access = Access(token)
    supervisor = Supervisor(
        partial(_spawn, options.worker),
        _timeouts(config.engine),
        prepare_load=partial(_prepare_load, config, state),
    )
    completions = CompletionService(
        supervisor,
        models.find,
        max_queue=config.completion.max_queue,
        switch_idle_s=config.engine.switch_idle_s,
    )
    listener = _listen(address)
    port = listener.getsockname()[1]
    gate = Gate(access, HostNames(socket.gethostname(), config.server.allowed_hosts), f"rockfill_{port}")
    dispatch = Dispatch(
        COMMANDS,
        {
            "supervisor": supervisor,
            "completions": completions,
            "models": models,
            "state": state,
            "configuration": config,
            "selftest": SelfTest(supervisor),
        },
    )
    routes = [
        *Pages(web_root).routes(),
        *Health(supervisor).routes(),
        *Sessions(access, gate).routes(),
        *OpenAI(completions, models, time.time()).routes(),
        *CommandsOverHttp(dispatch, gate).routes(),
    ]
    in_flight: set[asyncio.Task[Any]] = set()
    runner = web.AppRunner(
        build(routes, gate, in_flight),
        handle_signals=False,
        handler_cancellation=True,  # a client that goes away cancels its handler, which ends its run
        access_log=None,
        shutdown_timeout=DRAIN_S,
    )
    stop = _stop_on_signals()
    async with asyncio.TaskGroup() as tasks:
        engine = tasks.create_task(supervisor.run(), name="engine supervisor")
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            log.info("listening on %s:%d", *listener.getsockname()[:2])
            loading = tasks.create_task(_load(supervisor, models, say), name="first load")
            stopping = tasks.create_task(stop.wait(), name="wait for stop")
            await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                for line in _addresses(address, port, token):
                    say(line)
            await stopping
            loading.cancel()
        finally:
            if in_flight:
                await asyncio.wait(set(in_flight), timeout=DRAIN_S)
            supervisor.close()
            await runner.cleanup()
            await engine


def _choose(models: ModelStore, wanted: str | None, remembered: str | None) -> None:
    """Make the wanted model the chosen one: a path, a name, the remembered one, or the bundled one."""
    if wanted is not None:
        is_path = "/" in wanted or Path(wanted).suffix.lower() in (".gguf", ".rkllm") or Path(wanted).exists()
        target = target_at(Path(wanted)) if is_path else models.find(wanted)
    else:
        try:
            target = models.find(remembered or DEFAULT_MODEL)
        except Problem as problem:  # the remembered model was removed meanwhile
            log.warning("%s", problem.message)
            target = models.find(DEFAULT_MODEL)
    models.choose(target)


def _prepare_load(config: Config, state: StateDir, load: Load) -> Load:
    """The load with what the configuration and the last selftest say; `runtime_missing` where the NPU has none."""
    if load.engine == "rkllm":
        library = find_runtime(config.rkllm.library or os.environ.get("ROCKFILL_RKLLM_LIBRARY", ""), state.path)
        load = replace(
            load,
            library=str(library),
            context_tokens=config.rkllm.context_tokens,
            base_domain_id=config.rkllm.base_domain_id,
            embed_flash=config.rkllm.embed_flash,
        )
    else:
        load = replace(load, threads=config.engine.threads)
    result = SelfTestResult.stored(state.selftests().get(key_of(load)))
    return replace(load, fim_order=result.best_order) if result is not None else load


async def _spawn(argv: Sequence[str], listener: Listener) -> Child:
    return await Child.spawn(argv, listener, os.environ)


async def _load(supervisor: Supervisor, models: ModelStore, say: Callable[[str], None]) -> None:
    """Load the chosen model; where the NPU can't run it, the bundled one on the CPU instead, and say why."""
    target = models.chosen
    assert target is not None
    try:
        await supervisor.ensure_ready(target)
    except Problem as problem:
        say(f"The model {target.name} is not running: {problem.message} {problem.advice}".rstrip())
        if target.engine == "rkllm":
            models.choose(models.find(DEFAULT_MODEL), Fallback(target, problem.info))
            await _load(supervisor, models, say)
    else:
        facts = supervisor.snapshot.facts
        runtime = f" on {facts.runtime}" if facts else ""
        note = ", a small demonstration model" if target.demonstration else ""
        say(f"Running {target.name}{note}{runtime}.")


def _timeouts(engine: Engine) -> Timeouts:
    return Timeouts(
        hello_s=engine.hello_timeout_s,
        load_s=engine.load_timeout_s,
        accepted_s=engine.accepted_timeout_s,
        first_token_s=engine.first_token_timeout_s,
        token_gap_s=engine.token_gap_timeout_s,
        abort_s=engine.abort_timeout_s,
        stop_s=engine.stop_timeout_s,
    )


def _listen(address: Address) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        return socket.create_server((address.host, address.port), family=family, backlog=256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Problem(
                Code.ADDRESS_IN_USE,
                f"Another program is already listening on {address}.",
                "Stop it, or choose another address with --listen HOST:PORT.",
            ) from None
        raise Problem(
            Code.ADDRESS_UNAVAILABLE,
            f"Listening on {address} is not possible: {error.strerror or error}.",
            "Choose an address of this machine with --listen HOST:PORT.",
        ) from None


def _addresses(address: Address, port: int, token: str) -> list[str]:
    host = socket.gethostname() if address.everywhere else str(Address(address.host, port)).rpartition(":")[0]
    return [
        "Open this address in a browser (it holds the token; keep it to yourself):",
        f"http://{host}:{port}/#token={token}",
    ]


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: whoever embeds us stops us
            loop.add_signal_handler(number, stop.set)
    return stop
