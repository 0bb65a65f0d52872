"""Keeps models loaded: polls their base paths, loads new versions beside the old, swaps, unloads.

States and rules are TensorFlow Serving's: START, LOADING, AVAILABLE, UNLOADING, END (with the error, if
one ended it). An unwanted version is unloaded only once a wanted one serves. A version that could not be
loaded is tried again only after it vanished and returned. A base path that cannot be read, or that holds
no version any more, changes nothing: there are never zero versions where there was one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from caravan import tracing
from caravan.pace import Pace
from model_server.errors import Code, ServingError, failed_precondition, invalid, not_found
from model_server.loads import Loads
from model_server.servable import Servable
from model_server.sources import Source, SourceError, SourceRefusedError
from model_server.versions import Policy, may_unload

log = structlog.get_logger()

# How many ended versions the status still tells of, for each model.
MAX_ENDED = 100
# Seconds between two looks at a base path, at least, however often someone asks for the state.
SOON = 0.1


class State(IntEnum):
    """The states of ModelVersionStatus, with its numbers."""

    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


@dataclass(eq=False)
class Version:
    """One version of a model, from when it was first wanted."""

    number: int
    directory: str
    source: Source
    wanted: bool = True
    state: State = State.START
    error: ServingError | None = None
    servable: Servable | None = None
    path: Path | None = None
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class ModelConfig:
    """What is served under a name, and from where."""

    name: str
    base_path: str
    policy: Policy
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """How often to look and to try, and for how long, in seconds."""

    poll_seconds: float
    max_load_retries: int
    load_retry_seconds: float
    max_load_seconds: float = 600.0


Loader = Callable[[str, int, Path], Servable]
Drain = Callable[[Servable], Awaitable[None]]


class Model:
    """One model and its versions. `poll_once` looks at the base path; the rest follows from that."""

    def __init__(
        self,
        config: ModelConfig,
        source: Source,
        *,
        rules: Rules,
        loader: Loader,
        loads: Loads,
        drain: Drain,
    ) -> None:
        self.config = config
        self.changed = asyncio.Event()
        self.polled = asyncio.Event()
        self._answered = False
        self.versions: dict[int, Version] = {}
        self._source = source
        self._rules = rules
        self._loader = loader
        self._loads = loads
        self._drain = drain
        self._tasks: set[asyncio.Task[None]] = set()
        self._complaint = ""
        self._pace = Pace(rules.poll_seconds)
        self._asked = asyncio.Event()

    # --- what requests ask ------------------------------------------------------------------------

    def latest(self) -> Servable | None:
        """The highest version that serves."""
        serving = [version for version in self.versions.values() if version.state is State.AVAILABLE]
        return max(serving, key=lambda version: version.number).servable if serving else None

    def at(self, number: int) -> Servable | None:
        """That version, if it serves."""
        version = self.versions.get(number)
        return version.servable if version and version.state is State.AVAILABLE else None

    @property
    def settled(self) -> bool:
        """Whether nothing is to be waited for: it serves, or has no version, or none that can be loaded.

        As long as its base path has never answered, nothing is known of its versions.
        """
        if not self._answered:
            return False
        return self.latest() is not None or all(
            version.state is State.END for version in self.versions.values()
        )

    def take(self, config: ModelConfig, source: Source | None) -> None:
        """Follow a new configuration; from a new `source` only versions not loaded yet are taken."""
        self.config = config
        if source is not None:
            self._source = source

    # --- polling ----------------------------------------------------------------------------------

    async def poll(self) -> None:
        """Look at the base path again and again, until cancelled; soon where someone asks for the state."""
        while True:
            self._asked.clear()
            await self.poll_once()
            if any(version.state not in (State.AVAILABLE, State.END) for version in self.versions.values()):
                self._pace.stir()
            await asyncio.sleep(min(SOON, self._rules.poll_seconds))
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.pause - SOON):
                    await self._asked.wait()

    def ask(self) -> None:
        """Hear that someone wants to know how its versions are."""
        self._asked.set()

    async def poll_once(self) -> None:
        """Take note of what is at the base path now."""
        try:
            found = await self._source.versions(self.config.policy)
        except SourceError as exc:
            self._complain(f"{exc}; what is loaded goes on serving")
            self._answered |= isinstance(exc, SourceRefusedError)
        else:
            self.aspire(found)
            self._answered = True
        self.polled.set()

    def aspire(self, found: Mapping[int, str]) -> None:
        """Want the versions that the policy chooses among `found` (number to directory name)."""
        wanted = self.config.policy.choose(found)
        if not wanted:
            self._complain(
                f"No versions of servable {self.config.name} found under base path {self.config.base_path}"
                + ("; refusing to unload all" if self.latest() else "")
            )
        else:
            self._complaint = ""
        for version in self.versions.values():
            # What serves stays wanted where nothing is to take its place.
            if version.number not in wanted and (wanted or version.state is not State.AVAILABLE):
                version.wanted = False
                version.unwanted.set()
        for number in sorted(wanted, reverse=True):
            known = self.versions.get(number)
            if known is None or (known.state is State.END and not known.wanted):
                self._pace.stir()
                self.versions[number] = version = Version(number, found[number], self._source)
                self._spawn(self._load(version), f"load {self.config.name}/{number}")
            elif known.state is not State.UNLOADING and not known.wanted:
                known.wanted = True
                known.unwanted.clear()
        self._unload_superseded()

    def _complain(self, text: str) -> None:
        if text != self._complaint:
            log.warning(text)
            self._complaint = text

    # --- loading and unloading --------------------------------------------------------------------

    async def _load(self, version: Version) -> None:
        version.state = State.LOADING
        label = f"{self.config.name}/{version.number}"
        began = time.time_ns()
        for attempt in range(self._rules.max_load_retries + 1):
            try:
                version.path = await version.source.fetch(version.directory)
                version.servable = await self._loads.load(
                    partial(self._loader, self.config.name, version.number, version.path),
                    self._rules.max_load_seconds,
                    label,
                )
            except ServingError as exc:
                await self._discard(version)
                log.warning("load failed", servable=label, attempt=attempt + 1, reason=exc.message)
                is_last = attempt == self._rules.max_load_retries or exc.code is Code.DEADLINE_EXCEEDED
                if is_last or await self._given_up(version):
                    version.error = exc
                    break
            else:
                version.state = State.AVAILABLE
                log.info("version serves", servable=label)
                # The source has found out, meanwhile, of which trace the version is a part.
                tracing.past("load", began, model=self.config.name, version=version.number)
                break
        if version.servable is None:
            version.state = State.END
            log.error("version cannot be loaded", servable=label)
        self._notify()
        self._unload_superseded()

    async def _given_up(self, version: Version) -> bool:
        """Wait before the next try; whether the version stopped being wanted meanwhile."""
        try:
            await asyncio.wait_for(version.unwanted.wait(), self._rules.load_retry_seconds)
        except TimeoutError:
            return False
        return True

    def _unload_superseded(self) -> None:
        wanted = frozenset(version.number for version in self.versions.values() if version.wanted)
        serving = [number for number, version in self.versions.items() if version.state is State.AVAILABLE]
        for number in serving:
            if may_unload(number, wanted, serving):
                self._start_unload(self.versions[number])
        ended = sorted(number for number, version in self.versions.items() if version.state is State.END)
        for number in ended[:-MAX_ENDED]:
            del self.versions[number]

    def _start_unload(self, version: Version) -> None:
        version.state = State.UNLOADING
        self._spawn(self._unload(version), f"unload {self.config.name}/{version.number}")

    async def _unload(self, version: Version) -> None:
        servable = version.servable
        if servable is not None:
            await self._drain(servable)
            version.servable = None
            await self._loads.release(servable)
        await self._discard(version)
        version.state = State.END
        log.info("version is unloaded", servable=f"{self.config.name}/{version.number}")
        self._notify()

    async def _discard(self, version: Version) -> None:
        if version.path is not None:
            path, version.path = version.path, None
            await version.source.discard(path)

    async def retire(self) -> None:
        """The model is not configured any more: unload all of it, and wait for that."""
        for version in self.versions.values():
            version.wanted = False
            version.unwanted.set()
        while busy := [task for task in self._tasks if not task.done()]:
            await asyncio.wait(busy)
        for version in list(self.versions.values()):
            if version.state is State.AVAILABLE:
                self._start_unload(version)
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def close(self) -> None:
        """The server ends: stop loading, remove private copies."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for version in self.versions.values():
            await self._discard(version)

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("task failed", task=task.get_name(), exc_info=task.exception())


class Manager:
    """All models: finds the servable a request names, and takes new configurations."""

    def __init__(
        self,
        rules: Rules,
        open_source: Callable[[str], Source],
        loader: Loader,
        drain: Drain,
        *,
        allow_labels_for_unavailable: bool = False,
    ) -> None:
        self.models: dict[str, Model] = {}
        self._rules = rules
        self._open_source = open_source
        self._loader = loader
        self._drain = drain
        self._allow_labels = allow_labels_for_unavailable
        self._loads = Loads()
        self._pollers: dict[str, asyncio.Task[None]] = {}
        self._retiring: dict[asyncio.Task[None], Model] = {}
        self._reloading = asyncio.Lock()

    @property
    def is_stuck(self) -> bool:
        """Whether a load does not end although its time is over."""
        return self._loads.is_stuck

    def find(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """Return the servable a ModelSpec names. Raises ServingError in TensorFlow Serving's words."""
        if not name:
            raise invalid("ModelSpec has no name specified.")
        model = self.models.get(name)
        if label is not None:
            version = model.config.labels.get(label) if model else None
            if version is None:
                raise invalid(f"Unrecognized servable version label: {label}")
        servable = (model.latest() if version is None else model.at(version)) if model else None
        if servable is None:
            which = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {which}")
        return servable

    def status(self, name: str, version: int | None = None) -> list[Version]:
        """The known versions of a model, highest first. Raises ServingError(NOT_FOUND)."""
        model = self.models.get(name)
        if model is not None:
            model.ask()
        versions = model.versions if model else {}
        if version is not None:
            if version not in versions:
                raise not_found(f"Could not find version {version} of model {name}")
            return [versions[version]]
        if not versions:
            raise not_found(f"Could not find any versions of model {name}")
        return [versions[number] for number in sorted(versions, reverse=True)]

    async def configure(self, configs: Mapping[str, ModelConfig], *, wait: bool) -> None:
        """Serve exactly these models from now on.

        With `wait`, return when each new model has a version that serves. Raises
        ServingError(FAILED_PRECONDITION) for a label on a version that does not serve (nothing is
        changed then), NOT_FOUND or UNKNOWN when a new model has nothing to serve.
        """
        async with self._reloading:
            self._check_labels(configs)
            for name in [name for name in self.models if name not in configs]:
                await self._remove(name)
            new = [self._start(config) for name, config in configs.items() if name not in self.models]
            for name, config in configs.items():
                model = self.models[name]
                moved = config.base_path != model.config.base_path
                model.take(config, self._open_source(config.base_path) if moved else None)
        if wait:
            await asyncio.gather(*(self._await_first(model) for model in new))

    def _check_labels(self, configs: Mapping[str, ModelConfig]) -> None:
        for name, config in configs.items():
            model = self.models.get(name)
            for label, version in config.labels.items():
                known = model.config.labels.get(label) if model else None
                unused = self._allow_labels and known in {None, version}
                if not unused and (model is None or model.at(version) is None):
                    raise failed_precondition(
                        f"Request to assign label to version {version} of model {name}, "
                        "which is not currently available for inference"
                    )

    def _start(self, config: ModelConfig) -> Model:
        model = Model(
            config,
            self._open_source(config.base_path),
            rules=self._rules,
            loader=self._loader,
            loads=self._loads,
            drain=self._drain,
        )
        self.models[config.name] = model
        self._pollers[config.name] = asyncio.create_task(model.poll(), name=f"poll {config.name}")
        return model

    async def _remove(self, name: str) -> None:
        model = self.models.pop(name)
        await self._stop_polling(name)
        task = asyncio.create_task(model.retire(), name=f"retire {name}")
        self._retiring[task] = model
        task.add_done_callback(self._retiring.pop)

    async def _stop_polling(self, name: str) -> None:
        task = self._pollers.pop(name)
        task.cancel()
        await asyncio.wait([task])

    async def _await_first(self, model: Model) -> None:
        await model.polled.wait()
        name = model.config.name
        if not model.versions:
            raise not_found(
                f"Unable to find a numerical version path for servable {name} at: {model.config.base_path}"
            )
        while model.latest() is None:
            states = [version.state for version in model.versions.values()]
            if all(state is State.END for state in states):
                ids = ", ".join(f"{{name: {name} version: {number}}}" for number in model.versions)
                raise ServingError(Code.UNKNOWN, f"Some models did not become available: {{{ids}, }}")
            await model.changed.wait()

    async def watch(self) -> None:
        """Run until a poller ends, which none should: its error is raised here."""
        while True:
            pollers = list(self._pollers.values())
            if not pollers:
                await asyncio.sleep(self._rules.poll_seconds)
                continue
            done, _ = await asyncio.wait(
                pollers, timeout=self._rules.poll_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    async def close(self) -> None:
        """Stop polling and loading."""
        for name in list(self._pollers):
            await self._stop_polling(name)
        for task in list(self._retiring):
            task.cancel()
        for model in [*self.models.values(), *self._retiring.values()]:
            await model.close()
