"""The composition root: builds the services, gives each just what it uses, and runs them until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from rockfill import paths
from rockfill.access.connections import Connections
from rockfill.access.hosts import HostNames
from rockfill.access.logins import Logins
from rockfill.access.networks import Networks
from rockfill.access.tokens import Access
from rockfill.api.commands import engine as engine_commands
from rockfill.api.commands.all import COMMANDS
from rockfill.api.commands.document import ProtocolDocument
from rockfill.api.commands.http import CommandsOverHttp
from rockfill.api.commands.jobs import Jobs
from rockfill.api.commands.table import Dispatch
from rockfill.api.dialects.listing import Models
from rockfill.api.dialects.llamacpp import LlamaCpp
from rockfill.api.dialects.mistral import Mistral
from rockfill.api.dialects.ollama import Ollama
from rockfill.api.dialects.openai import OpenAI
from rockfill.api.dialects.tabby import Tabby
from rockfill.api.gate import Gate
from rockfill.api.health import Health
from rockfill.api.listener import listen
from rockfill.api.login import Sessions
from rockfill.api.metrics import Metrics
from rockfill.api.pages import Pages
from rockfill.api.server import build
from rockfill.api.stats import StatsOverHttp
from rockfill.api.ws.connection import WebSockets
from rockfill.api.ws.subscriptions import Subscriptions
from rockfill.bus import Bus, Event, Topic
from rockfill.clocks.keeper import Keeper
from rockfill.clocks.service import ClockService
from rockfill.completion.service import CompletionService
from rockfill.config import Address, ClockPolicy, Clocks, Config, Settings, parse_address, reload
from rockfill.config import load as load_configuration
from rockfill.doctor.gather import Asked, is_tested
from rockfill.doctor.service import Doctor
from rockfill.downloads.libraries import board_facts, build_libraries
from rockfill.engine.events import Timeouts
from rockfill.engine.herald import Herald
from rockfill.engine.history import History
from rockfill.engine.leftover import Leftover
from rockfill.engine.process import Child
from rockfill.engine.supervisor import Supervisor
from rockfill.errors import Code, Problem
from rockfill.evaluation.results import Results
from rockfill.hardware.board import Account, boot_id
from rockfill.hardware.devices import ClockFiles
from rockfill.hardware.ports import listener_on
from rockfill.hardware.process import most_files
from rockfill.hardware.sampler import Sampler
from rockfill.selftest.result import SelfTestResult, key_of
from rockfill.selftest.runner import SelfTest
from rockfill.snapshots import Phase
from rockfill.store.models import DEFAULT_MODEL, Fallback, ModelStore, choose_remembered, target_at
from rockfill.telemetry.service import EngineFigures, Telemetry
from rockfill.watchdog import ServiceManager, status_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rockfill.config import Engine, Server
    from rockfill.downloads.libraries import Libraries
    from rockfill.engine.process import Listener
    from rockfill.link.messages import Load
    from rockfill.snapshots import EngineSnapshot, Target
    from rockfill.state import StateDir

log = logging.getLogger(__name__)

WORKER = (sys.executable, "-P", "-m", "rockfill.worker")

# How long requests in progress may go on once the daemon has been told to stop; and, their engine gone, how long what
# is still there of them: aiohttp waits twice so long. With what the worker is given meanwhile (`engine/machine`) and a
# second for all the rest, `systemctl stop` takes less than 5 s whatever hangs.
DRAIN_S = 3.0
CLEAN_UP_S = 0.4

# That the engine is busy is told a moment later, and not while a completion waits for its first token.
TELL_S = 0.01

# A crashing engine must not write to a memory card all the time.
HISTORY_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Options:
    """What a start is given beside the configuration. `model` is a name, a path, or None for what was chosen;
    without `say_token` the token is in none of the lines that are said."""

    config: Config
    config_path: Path | None = None
    model: str | None = None
    listen: str | None = None
    web_root: Path | None = None
    worker: Sequence[str] = WORKER
    say_token: bool = True


async def serve(options: Options, state: StateDir, say: Callable[[str], None]) -> None:
    """Run the appliance until SIGTERM or SIGINT.

    `say` gets lines for whoever started it; the last is the page's address. Raises the `Problem` that keeps it from
    starting; a model that can't be loaded does not.
    """
    address = parse_address(options.listen or options.config.server.listen)
    web_root = paths.web_root(options.web_root)
    access = Access(state.token(), state.tokens())
    tls = _tls_context(options.config.server)
    listener = _listen(address)
    with contextlib.closing(listener), contextlib.closing(ServiceManager()) as manager:
        appliance = _Appliance(options, state, access, web_root, listener.getsockname()[1], manager, tls)
        await appliance.run(listener, address, say)


class _Appliance:
    """Every service, built once and given just what it uses."""

    def __init__(
        self,
        options: Options,
        state: StateDir,
        access: Access,
        web_root: Path,
        port: int,
        manager: ServiceManager,
        tls: ssl.SSLContext | None,
    ) -> None:
        config = options.config
        self._tls = tls
        self._options = options
        self._settings = Settings(config)
        self._state = state
        self._token = state.token()
        self._manager = manager
        self._bus = Bus()
        self._herald = Herald()
        self._telling: asyncio.TimerHandle | None = None
        self._history = History(state.history())
        self._history_changed = asyncio.Event()
        self._models = ModelStore([paths.bundled_models(), state.path / "models"])
        _choose(self._models, options.model, state.choices().model)
        self._libraries = build_libraries(
            config,
            state,
            self._models,
            self._bus,
            board_facts,
            arrived=self._run_model,
            runtime_arrived=self._runtime_arrived,
        )
        self._supervisor = Supervisor(
            partial(_spawn, options.worker, self._settings, state),
            _timeouts(config.engine),
            prepare_load=partial(_prepare_load, self._settings, state, self._libraries),
            changed=self._engine_changed,
            printed=lambda line: self._bus.publish(Event(Topic.LOGS, "engine.printed", {"line": line})),
            recycle_growth_bytes=_recycle_growth_bytes(config),
        )
        self._completions = completions = CompletionService(
            self._supervisor,
            self._libraries.models.find,
            **_scheduling(config),
            bus=self._bus,
        )
        networks = Networks(
            config.server.trusted_proxies, config.access.tokenless, insecure_lan=config.access.insecure_lan
        )
        self._connections = Connections(networks, config.server.max_connections_per_address, most_files() // 2)
        self._hosts = HostNames(socket.gethostname(), config.server.allowed_hosts)
        logins = Logins(access, time.monotonic)
        gate = Gate(access, logins, self._hosts, networks, f"rockfill_{port}")
        pages = Pages(web_root, open_to_some=networks.open_to_some)
        self._telemetry = Telemetry(
            Sampler(state.path), partial(_engine_figures, self._supervisor, completions), self._bus
        )
        self._clocks = ClockService(
            Keeper(ClockFiles(), state, boot_id), _clock_settings(config, state), self._bus, self._hottest_celsius
        )
        self._jobs = Jobs(self._bus)
        services = {
            "access": access,
            "jobs": self._jobs,
            "logins": logins,
            "bus": self._bus,
            "supervisor": self._supervisor,
            "completions": completions,
            "models": self._models,
            "state": state,
            "configuration": self._settings,
            "selftest": SelfTest(self._supervisor),
            "events": self._history,
            "library": self._libraries.models,
            "runtimes": self._libraries.runtimes,
            "downloads": self._libraries.downloads,
            "run_model": self._run_model,
            "evaluations": Results(state.evaluations()),
            "telemetry": self._telemetry,
            "clocks": self._clocks,
            "doctor": Doctor(self._examined),
        }
        dispatch = Dispatch(COMMANDS, services)
        snapshots = {
            Topic.ENGINE: lambda: engine_commands.changed(self._supervisor, completions, self._models),
            Topic.DOWNLOADS: self._libraries.downloads.event,
            Topic.STATS: lambda: self._telemetry.event,
        }
        subscriptions = Subscriptions(self._bus, snapshots, self._watched)
        self._websockets = WebSockets(dispatch, gate, subscriptions)
        access.when_revoked(self._websockets.revoked)
        routes = [
            *pages.routes(),
            *Health(self._supervisor).routes(),
            *Sessions(gate, pages).routes(),
            *Models(self._models, self._supervisor, time.time()).routes(),
            *OpenAI(completions).routes(),
            *Mistral(completions).routes(),
            *Tabby(self._models).routes(),
            *LlamaCpp(completions, self._models, self._supervisor).routes(),
            *Ollama(completions, self._models, self._supervisor, gate).routes(),
            *StatsOverHttp(self._telemetry).routes(),
            *Metrics(self._telemetry, self._supervisor, completions, self._clocks, self._bus).routes(),
            *CommandsOverHttp(dispatch, self._jobs, gate).routes(),
            *ProtocolDocument().routes(),
            *self._websockets.routes(),
        ]
        self._in_flight: set[asyncio.Task[Any]] = set()
        self._loads: set[asyncio.Task[None]] = set()
        self._runner = web.AppRunner(
            build(routes, gate, self._in_flight),
            handle_signals=False,
            handler_cancellation=True,  # a client that goes away cancels its handler, which ends its run
            shutdown_timeout=CLEAN_UP_S,
        )

    async def run(self, listener: socket.socket, address: Address, say: Callable[[str], None]) -> None:
        """Serve until told to stop, then end everything that was begun."""
        stop = _on_signals(self._reload)
        async with asyncio.TaskGroup() as tasks:
            engine = tasks.create_task(self._supervisor.run(), name="engine supervisor")
            background = [
                tasks.create_task(
                    self._manager.watchdog(self._supervisor.heartbeat, self._tell_manager), name="watchdog"
                ),
                tasks.create_task(self._keep_history(), name="history"),
                tasks.create_task(self._libraries.run(), name="downloads"),
                tasks.create_task(self._telemetry.run(), name="telemetry"),
                tasks.create_task(self._clocks.run(), name="clocks"),
            ]
            await self._runner.setup()
            server: asyncio.Server | None = None
            try:
                server = await listen(self._runner, listener, self._connections, self._tls)
                log.info("listening on %s:%d", *listener.getsockname()[:2])
                self._state.announce(_local_url(address, listener.getsockname()[1], tls=self._tls is not None))
                self._manager.ready()
                loading = tasks.create_task(self._first_load(say), name="first load")
                background.append(loading)
                stopping = tasks.create_task(stop.wait(), name="wait for stop")
                await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
                gc.collect()
                gc.freeze()  # what is here now stays; no collection in the middle of an answer has to look at it
                if not stop.is_set():
                    token = self._token if self._options.say_token else None
                    for line in _addresses(address, listener.getsockname()[1], token, tls=self._tls is not None):
                        say(line)
                await stopping
            finally:
                self._manager.stopping()
                if server is not None:
                    server.close()
                for task in (*background, *self._loads):
                    task.cancel()
                self._websockets.close_when_idle()
                if self._in_flight:
                    await asyncio.wait(set(self._in_flight), timeout=DRAIN_S)
                await self._jobs.close()
                self._supervisor.close()
                await self._runner.cleanup()
                await engine
                if self._telling is not None:
                    self._telling.cancel()
                problem = self._supervisor.snapshot.problem
                if problem is None or problem.code is not Code.NPU_WEDGED:
                    self._state.keep_worker(None)
                self._write_history()

    async def _first_load(self, say: Callable[[str], None]) -> None:
        wanted, chosen = self._libraries.models.wanted, self._models.chosen
        if wanted is not None and (chosen is None or chosen.demonstration):
            say(f"Fetching {wanted.reference}; it is loaded once it is here.")
            return
        await self._load(say)

    async def _load(self, say: Callable[[str], None]) -> None:
        await _load(self._supervisor, self._models, say, paused=lambda: self._completions.paused)

    def _runtime_arrived(self) -> None:
        """Run what only a missing runtime kept from running."""
        fallback = self._models.instead_of
        if fallback is not None and fallback.problem.code is Code.RUNTIME_MISSING:
            self._run_model(fallback.target)

    def _run_model(self, target: Target) -> None:
        """Make a model that is here the chosen one, and load it in the background, or once a pause is over."""
        self._models.choose(target)
        self._bus.publish(engine_commands.changed(self._supervisor, self._completions, self._models))
        if self._completions.paused:
            return
        task = asyncio.get_running_loop().create_task(self._load(log.info))
        self._loads.add(task)
        task.add_done_callback(self._loads.discard)

    def _engine_changed(self, snapshot: EngineSnapshot) -> None:
        self._tell_manager()
        if self._history.record(snapshot, self._supervisor.last_lines):
            self._history_changed.set()
        for event in self._herald.events(snapshot):
            self._bus.publish(event)
        if snapshot.phase is not Phase.BUSY:
            self._tell_engine()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(TELL_S, self._tell_engine)

    def _tell_manager(self) -> None:
        speed, celsius = self._supervisor.tokens_per_second, self._telemetry.figure("npu.temp_celsius")
        self._manager.status(status_text(self._supervisor.snapshot, speed, celsius))

    def _tell_engine(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._telemetry.engine_changed()
        self._clocks.engine_changed(self._supervisor.snapshot)
        self._bus.publish(engine_commands.changed(self._supervisor, self._completions, self._models))

    def _examined(self) -> Asked:
        target = self._models.chosen
        return Asked(
            config=self._options.config,
            policy=self._clocks.settings.policy,
            state_dir=self._state.path,
            state_problem=None,
            model=target,
            tested=target is not None and is_tested(self._state.selftests(), target),
            account=Account.mine(),
            port_is_ours=True,
        )

    async def _hottest_celsius(self) -> float | None:
        celsius = (await self._telemetry.stats()).figures["soc.hottest_celsius"]
        return celsius if isinstance(celsius, int | float) else None

    def _watched(self, topic: Topic, interval_s: float | None) -> None:
        if topic is Topic.STATS:
            self._telemetry.watched(interval_s)

    async def _keep_history(self) -> None:
        """Write the history down a moment after it changed; a power cut costs at most that moment."""
        while True:
            await self._history_changed.wait()
            self._history_changed.clear()
            await asyncio.to_thread(self._write_history)
            await asyncio.sleep(HISTORY_PAUSE_S)

    def _write_history(self) -> None:
        try:
            self._state.keep_history(lambda: [asdict(event) for event in self._history.events])
        except Problem as problem:  # a full disk must not end the appliance
            log.warning("the history is not kept: %s", problem.message)

    def _reload(self) -> None:
        """Take up what can be changed while running, and say what can't."""
        try:
            config = load_configuration(self._options.config_path)
        except Problem as problem:
            log.error("the configuration stays as it was. %s", problem.message)
            return
        reloaded = reload(self._settings.config, config)
        self._settings.config = config = reloaded.config
        self._supervisor.reconfigure(_timeouts(config.engine), _recycle_growth_bytes(config))
        self._completions.reconfigure(**_scheduling(config))
        self._hosts.allow(config.server.allowed_hosts)
        if self._tls is not None:
            try:
                _load_certificate(self._tls, config.server)
            except Problem as problem:
                log.error("the certificate stays as it was. %s", problem.message)
        log.warning("the configuration was read again: %s", reloaded)


def _choose(models: ModelStore, wanted: str | None, remembered: str | None) -> None:
    """Make the wanted model the chosen one: a path, a name, the remembered one, or the bundled one if it is there."""
    if wanted is not None:
        is_path = "/" in wanted or wanted.lower().endswith((".gguf", ".rkllm")) or _exists(Path(wanted))
        models.choose(target_at(Path(wanted)) if is_path else models.find(wanted))
    else:
        choose_remembered(models, remembered)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name, say
        return False


def _prepare_load(settings: Settings, state: StateDir, libraries: Libraries, load: Load) -> Load:
    """The load with what the configuration and the last selftest say; `runtime_missing` where the NPU has none."""
    config = settings.config
    if load.engine == "rkllm":
        load = replace(
            load,
            library=str(libraries.runtimes.library_for(libraries.models.converter_of(load.path))),
            context_tokens=config.rkllm.context_tokens,
            base_domain_id=config.rkllm.base_domain_id,
            embed_flash=config.rkllm.embed_flash,
        )
    else:
        load = replace(load, threads=config.engine.threads)
    result = SelfTestResult.stored(state.selftests().get(key_of(load)))
    return replace(load, fim_order=result.best_order) if result is not None else load


async def _spawn(argv: Sequence[str], settings: Settings, state: StateDir, listener: Listener) -> Child:
    earlier = Leftover.stored(await asyncio.to_thread(state.worker))
    if earlier is not None:
        await earlier.end()
    prompts = {"RKLLM_LOG_LEVEL": "2"} if settings.config.rkllm.log_prompts else {}
    child = await Child.spawn(argv, listener, {**os.environ, **prompts})
    worker = await asyncio.to_thread(Leftover.of, child.pid)
    await asyncio.to_thread(state.keep_worker, worker.value() if worker else None)
    return child


async def _load(
    supervisor: Supervisor, models: ModelStore, say: Callable[[str], None], *, paused: Callable[[], bool]
) -> None:
    """Load the chosen model; where the NPU can't run it, the bundled one on the CPU instead, and say why.

    Nothing once the engine is paused, which it may have been since this was begun.
    """
    if paused():
        return
    target = models.chosen
    if target is None:
        say("No model is installed. Choose one on the page, or install the package rockfill-cpu to try Rockfill out.")
        return
    try:
        await supervisor.ensure_ready(target)
    except Problem as problem:
        say(f"The model {target.name} is not running: {problem.message} {problem.advice}".rstrip())
        # Whoever unloaded it, or chose another meanwhile, wants no bundled model instead.
        wanted = problem.code is not Code.ENGINE_STOPPED and models.chosen == target
        if wanted and target.engine == "rkllm" and (bundled := _bundled(models)) is not None:
            models.choose(bundled, Fallback(target, problem.info))
            await _load(supervisor, models, say, paused=paused)
    else:
        facts = supervisor.snapshot.facts
        runtime = f" on {facts.runtime}" if facts else ""
        note = ", a small demonstration model" if target.demonstration else ""
        say(f"Running {target.name}{note}{runtime}.")


def _clock_settings(config: Config, state: StateDir) -> Clocks:
    """What was chosen stands above the configuration."""
    choices = state.choices()
    if choices.clock_policy not in set(ClockPolicy):
        return config.clocks
    return replace(config.clocks, policy=ClockPolicy(choices.clock_policy), fixed_mhz=choices.fixed_mhz)


def _engine_figures(supervisor: Supervisor, completions: CompletionService) -> EngineFigures:
    snapshot = supervisor.snapshot
    return EngineFigures(
        working=snapshot.phase in (Phase.STARTING, Phase.LOADING, Phase.BUSY),
        worker_pid=snapshot.worker_pid,
        tokens_per_second=supervisor.tokens_per_second,
        first_token_s=completions.first_token_s,
        queue_depth=completions.queue_depth,
    )


def _bundled(models: ModelStore) -> Target | None:
    try:
        return models.find(DEFAULT_MODEL)
    except Problem:
        return None


def _scheduling(config: Config) -> dict[str, Any]:
    return {
        "max_queue": config.completion.max_queue,
        "switch_idle_s": config.engine.switch_idle_s,
        "first_token_target_s": config.completion.first_token_target_s,
    }


def _recycle_growth_bytes(config: Config) -> int:
    return config.engine.recycle_growth_mib << 20


def _timeouts(engine: Engine) -> Timeouts:
    return Timeouts(
        hello_s=engine.hello_timeout_s,
        load_s=engine.load_timeout_s,
        accepted_s=engine.accepted_timeout_s,
        first_token_s=engine.first_token_timeout_s,
        token_gap_s=engine.token_gap_timeout_s,
        abort_s=engine.abort_timeout_s,
        stop_s=engine.stop_timeout_s,
        ping_s=engine.ping_s,
        pong_s=engine.pong_timeout_s,
        idle_unload_s=engine.idle_unload_s,
    )


def _tls_context(server: Server) -> ssl.SSLContext | None:
    """What TLS is spoken with, None if it is not."""
    if not server.tls_cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_certificate(context, server)
    return context


def _load_certificate(context: ssl.SSLContext, server: Server) -> None:
    try:
        context.load_cert_chain(server.tls_cert, server.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise Problem(
            Code.CONFIG_INVALID,
            f"The certificate {server.tls_cert} can't be used with the key {server.tls_key}: {error}.",
            "Give [server] tls_cert and tls_key two PEM files that belong together and that Rockfill may read.",
        ) from None


def _listen(address: Address) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        both = address.everywhere and family == socket.AF_INET6
        where = (address.host, address.port)
        return socket.create_server(where, family=family, backlog=256, dualstack_ipv6=both)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Problem(
                Code.ADDRESS_IN_USE,
                f"{listener_on(address.port) or 'Another program'} is already listening on {address}.",
                "Stop it, or choose another address with --listen HOST:PORT.",
            ) from None
        raise Problem(
            Code.ADDRESS_UNAVAILABLE,
            f"Listening on {address} is not possible: {error.strerror or error}.",
            "Choose an address of this machine with --listen HOST:PORT.",
        ) from None


def _local_url(address: Address, port: int, *, tls: bool) -> str:
    """Where this machine itself reaches the daemon."""
    host = ("::1" if ":" in address.host else "127.0.0.1") if address.everywhere else address.host
    return f"{'https' if tls else 'http'}://{Address(host, port)}"


def _addresses(address: Address, port: int, token: str | None, *, tls: bool) -> list[str]:
    host = socket.gethostname() if address.everywhere else str(Address(address.host, port)).rpartition(":")[0]
    url = f"{'https' if tls else 'http'}://{host}:{port}/"
    if token is None:
        return [f"Listening on {url}; `sudo rockfill open` prints an address that lets you in."]
    return [
        "Open this address in a browser (it holds the token; keep it to yourself):",
        f"{url}#token={token}",
    ]


def _on_signals(reload: Callable[[], None]) -> asyncio.Event:
    """An event that is set once somebody wants us to stop; SIGHUP calls `reload`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: whoever embeds us stops us
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, stop.set)
        loop.add_signal_handler(signal.SIGHUP, reload)
    return stop
