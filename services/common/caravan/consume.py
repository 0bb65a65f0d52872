"""The one loop that reads Kafka for an effect, and what a route says of it: its policy.

A message goes through three hands: `handle` reads it and returns its effect, the effect is made, and the
message is done. Offsets are committed as far as everything before them is done, whatever waits behind.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NoReturn, Protocol, TypeVar

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from caravan import telemetry, tracing
from caravan.dead_letters import SendDeadLetter, parked_for
from caravan.errors import BadInput, CaravanError, Permanent, Transient
from caravan.kafka import Batch, trace_of
from caravan.retry import LONGEST_WAIT, forever, retried

log = structlog.get_logger()
T = TypeVar("T")

POLL_SECONDS = 5.0
COMMIT_SECONDS = 0.2
"""Pause between two commits: each is a request, and at the embedded broker a written object."""
FAREWELL_SECONDS = 3.0
"""Deadline in seconds of the last commit when a loop ends."""
MIB = 2**20
REFUSALS = (GroupAuthorizationFailedError, TopicAuthorizationFailedError)
"""Errors of a broker that answers, so that nothing else tells of them."""

Effect = Callable[[], Awaitable[object]]
Handle = Callable[[ConsumerRecord], Awaitable[Effect]]
Park = Callable[[ConsumerRecord], Awaitable[None]]


class Source(Protocol):
    """A consumer of a group, as far as the loop needs one."""

    def assignment(self) -> Collection[TopicPartition]:
        """Return the partitions that are ours."""
        ...

    async def getmany(self, *, timeout_ms: int, max_records: int) -> Batch:
        """Return what has come, in order within each partition; raise Ended where nothing comes any more."""
        ...

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> object:
        """Commit the offsets that are to be read next."""
        ...


class Ended(Exception):
    """Raised by a source that has no more, and will not get any."""


class Stopped(Permanent):
    """Too many messages in a row failed in a way that nobody foresaw: the fault is ours, not theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a route consumes.

    Attributes:
        route: its id, in logs, metrics and traces.
        sink: the dependency of its effect, for counting retries.
        at_once: messages that are handled side by side.
        in_flight: messages taken and not done, in memory.
        in_flight_bytes: most bytes of their values; a larger message is taken alone.
        order: `key` has the effects of one key (of messages without a key: none) follow one another;
            `partition` has the effects of a partition begin in its order, so that an aggregator gets them so.
        within: seconds for which a message is tried that may work later.
        then: what becomes of it after that. `stop` ends the loop, which begins again where it was committed;
            but a message that twice fails for so long while others are done becomes a dead letter alone.
            `park` sends it where it is read again later, until it has waited for `age` seconds in all;
            after that, and with `dead-letter` at once, it becomes a dead letter.
        age: see `park`.
        unforeseen: messages in a row that may fail in a way that nobody foresaw; one more stops the consumer.
        gathers: whether the effects end in an aggregator, which tries again by itself, and opens one exchange
            for all that it gathers; else each message has its own.

    Raises:
        ValueError: if the parts contradict each other; it names every fault.

    """

    route: str
    sink: str
    at_once: int
    in_flight: int
    within: float
    then: Literal["stop", "park", "dead-letter"]
    in_flight_bytes: int = 64 * MIB
    order: Literal["none", "key", "partition"] = "none"
    age: float = 0
    unforeseen: int = 20
    gathers: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        faults = {
            "at least one message is handled at once": self.at_once < 1,
            "as many messages are in flight as are handled at once": self.in_flight < self.at_once,
            "a message has bytes": self.in_flight_bytes < 1,
            "a time is not negative": self.within < 0 or self.unforeseen < 0,
            "a parked message comes back behind others, so there is no order to keep": (
                self.then == "park" and self.order != "none"
            ),
            "a message is parked until an age beyond its first tries": (
                self.then == "park" and self.age <= self.within
            ),
            "an age is for messages that are parked": self.then != "park" and self.age != 0,
        }
        if found := [fault for fault, is_so in faults.items() if is_so]:
            message = f"the policy of {self.route} contradicts itself: {'; '.join(found)}"
            raise ValueError(message)


# --- offsets ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Progress:
    """The messages of a partition that were taken and are not done, in order, and those done out of turn."""

    committed: int
    next: int
    waiting: deque[int] = field(default_factory=deque)
    done: set[int] = field(default_factory=set)

    def finish(self, offset: int) -> None:
        self.done.add(offset)
        while self.waiting and self.waiting[0] in self.done:
            self.done.remove(self.waiting.popleft())

    @property
    def prefix(self) -> int:
        return self.waiting[0] if self.waiting else self.next


class Offsets:
    """Which messages are taken and which are done; of each partition the prefix that is done is committed."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Progress] = {}

    def take(self, partition: TopicPartition, offset: int) -> Callable[[], None]:
        """Note that a message was taken; returns what to call, once, when it is done.

        A partition that begins again at an earlier offset was given back meanwhile, and nothing that was
        known of it counts any more.
        """
        progress = self._partitions.get(partition)
        if progress is None or offset < progress.next:
            progress = self._partitions[partition] = _Progress(committed=offset, next=offset)
        progress.waiting.append(offset)
        progress.next = offset + 1
        return partial(progress.finish, offset)

    def keep(self, partitions: Collection[TopicPartition]) -> None:
        """Forget all other partitions: they are someone else's now."""
        for partition in self._partitions.keys() - set(partitions):
            del self._partitions[partition]

    def to_commit(self) -> dict[TopicPartition, int]:
        """Return of each partition the offset before which everything is done, where that has moved."""
        return {
            partition: progress.prefix
            for partition, progress in self._partitions.items()
            if progress.prefix > progress.committed
        }

    def committed(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Note what the broker has."""
        for partition, offset in offsets.items():
            if (progress := self._partitions.get(partition)) is not None:
                progress.committed = max(progress.committed, offset)


# --- the loop -----------------------------------------------------------------------------------


async def consume(
    source: Source, handle: Handle, send_dead_letter: SendDeadLetter, policy: Policy, park: Park | None = None
) -> None:
    """Handle messages for as long as they come.

    Args:
        source: a consumer that commits nothing by itself.
        handle: reads a message and returns its effect. Messages are begun in the order in which they came.
        send_dead_letter: called with what `handle` or the effect refuses (`BadInput`,
            `Permanent`), and what fails in a way that nobody foresaw, with the code `unexpected`.
        policy: see there.
        park: sends a message to where it is read again later, if the policy says so.

    Raises:
        Transient: if a message could neither be handled nor become a dead letter in time.
        Stopped: if the fault is ours; the offset of the first message of the row is kept.

    """
    if (park is None) == (policy.then == "park"):
        message = f"the policy of {policy.route} and what it parks with do not fit"
        raise ValueError(message)
    loop = _Loop(source, handle, send_dead_letter, policy, park)
    try:
        await loop.run()
    except ExceptionGroup as several:
        raise _first(several) from several
    finally:
        with suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await loop.commit()


@dataclass(slots=True)
class _Message:
    """A message in flight.

    Attributes:
        record: as it came.
        done: to be called once nothing more is to be done for it.
        before: ends when this message's effect may begin.
        over: ends when the next message's effect may begin.
        began: when it was last begun, by the loop's clock.

    """

    record: ConsumerRecord
    done: Callable[[], None]
    before: asyncio.Future[None] | None
    over: asyncio.Future[None]
    began: float = 0

    @property
    def size(self) -> int:
        return len(self.record.value or b"")


class _Loop:
    """One life of the loop."""

    def __init__(
        self,
        source: Source,
        handle: Handle,
        send_dead_letter: SendDeadLetter,
        policy: Policy,
        park: Park | None,
    ) -> None:
        self._source = source
        self._handle = handle
        self._send_dead_letter = send_dead_letter
        self._policy = policy
        self._park = park
        self._offsets = Offsets()
        self._places = asyncio.Semaphore(policy.at_once)
        self._lanes: dict[Hashable, asyncio.Future[None]] = {}
        self._in_flight = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._moved = asyncio.Event()
        self._last_success = 0.0
        self._in_a_row = 0
        self._suspects: list[Callable[[], None]] = []
        """Dead letters of a row of unforeseen failures; they are not committed while the row goes on."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            commits = group.create_task(self._commit_as_it_moves(), name="commit")
            with suppress(Ended):
                await self._take(group)
            while self._in_flight:
                self._room.clear()
                await self._room.wait()
            commits.cancel()
        self._clear_suspects()
        await self.commit()

    async def _take(self, group: asyncio.TaskGroup) -> NoReturn:
        while True:
            await self._wait_for_room()
            room = self._policy.in_flight - self._in_flight
            batch = await self._source.getmany(timeout_ms=int(POLL_SECONDS * 1000), max_records=room)
            if not batch and not self._in_flight:
                self._clear_suspects()  # nothing comes that could clear them
            for partition, records in batch.items():
                for message in [self._taken(partition, record) for record in records]:
                    self._in_flight += 1
                    self._bytes += message.size
                    group.create_task(self._one(message))

    async def _wait_for_room(self) -> None:
        while self._in_flight >= self._policy.in_flight or self._bytes >= self._policy.in_flight_bytes:
            self._room.clear()
            await self._room.wait()

    # --- one message ------------------------------------------------------------------------------

    async def _one(self, message: _Message) -> None:
        try:
            await self._settle(message)
        finally:
            if not message.over.done():
                message.over.set_result(None)
            self._in_flight -= 1
            self._bytes -= message.size
            self._room.set()
            self._moved.set()

    async def _settle(self, message: _Message) -> None:
        for is_last in (False, True):
            try:
                await self._work(message)
            except Exception as exc:  # noqa: BLE001 - what becomes of it is decided there
                is_alone = isinstance(exc, Transient) and self._fails_alone(message)
                if is_alone and not is_last:
                    continue  # what it needs came back, perhaps, between its last try and those of the others
                await self._failed(message, exc, is_alone=is_alone)
            else:
                self._last_success = asyncio.get_running_loop().time()
                self._in_a_row = 0
                self._clear_suspects()
                message.done()
            return

    def _fails_alone(self, message: _Message) -> bool:
        """Tell whether others were done while this message was tried, where one is tried by itself."""
        is_itself = not self._policy.gathers and self._policy.order != "partition"
        return self._policy.then == "stop" and is_itself and self._last_success > message.began

    async def _work(self, message: _Message) -> None:
        await self._places.acquire()
        message.began = asyncio.get_running_loop().time()
        has_place = True

        async def handled() -> Effect:
            nonlocal has_place
            if not has_place:
                await self._places.acquire()
            try:
                return await self._handle(message.record)
            finally:
                has_place = False
                self._places.release()  # until it is tried again the place is another's

        with self._exchange(message.record):
            effect = await self._tried(handled, self._policy.sink)
            if message.before is not None:
                await message.before
            if self._policy.order == "partition" and not message.over.done():
                message.over.set_result(None)
            if self._policy.gathers:
                await effect()
            else:
                await self._tried(effect, self._policy.sink)

    async def _failed(self, message: _Message, error: Exception, *, is_alone: bool) -> None:
        match error:
            case BadInput():
                telemetry.REFUSALS.labels(self._policy.route, error.reason).inc()
                await self._dead_letter(message.record, error.detail, error.reason)
            case Transient():
                await self._later(message.record, error, is_alone=is_alone)
            case CaravanError():
                await self._dead_letter(message.record, str(error), "refused")
            case _:
                await self._unforeseen(message, error)
                return
        message.done()

    async def _later(self, record: ConsumerRecord, error: Transient, *, is_alone: bool) -> None:
        policy = self._policy
        if policy.then == "stop" and not is_alone:
            raise error
        if self._park is not None and parked_for(record) < policy.age:
            try:
                await self._tried(partial(self._park, record), "kafka")
            except Permanent as exc:
                await self._dead_letter(record, f"{error}; it cannot be parked: {exc}", "away")
        else:
            await self._dead_letter(record, str(error), "away")

    async def _unforeseen(self, message: _Message, error: Exception) -> None:
        """Make a dead letter of a message that shows a fault of ours, unless all recent messages do."""
        self._in_a_row += 1
        record = message.record
        if self._in_a_row > self._policy.unforeseen:
            reason = (
                f"stopped: {self._in_a_row} messages in a row failed in a way that nobody foresaw, the last "
                f"one at {record.topic}/{record.partition}/{record.offset} with {type(error).__name__}"
            )
            raise Stopped(reason) from error
        trace = error if self._in_a_row == 1 else None  # those after it are likely to be the same
        log.error("message failed", route=self._policy.route, offset=record.offset, exc_info=trace)
        await self._dead_letter(record, repr(error), "unexpected")
        if self._in_a_row:
            self._suspects.append(message.done)
        else:  # the row has ended meanwhile
            message.done()

    async def _dead_letter(self, record: ConsumerRecord, reason: str, code: str) -> None:
        await self._tried(partial(self._send_dead_letter, record, reason, code), "kafka")

    async def _tried(self, call: Callable[[], Awaitable[T]], to: str) -> T:
        return await retried(call, to=to, within=self._policy.within)

    @contextmanager
    def _exchange(self, record: ConsumerRecord) -> Iterator[None]:
        if self._policy.gathers:
            yield
        else:
            with tracing.following(trace_of(record)), telemetry.exchange(self._policy.route):
                yield

    def _taken(self, partition: TopicPartition, record: ConsumerRecord) -> _Message:
        """Give a message its place among the offsets, and its turn."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = None
        lane: Hashable = {"none": None, "key": record.key, "partition": partition}[self._policy.order]
        if lane is not None:
            before, self._lanes[lane] = self._lanes.get(lane), over
            over.add_done_callback(partial(self._leave, lane))
        return _Message(record, self._offsets.take(partition, record.offset), before, over)

    def _leave(self, lane: Hashable, over: asyncio.Future[None]) -> None:
        if self._lanes.get(lane) is over:
            del self._lanes[lane]

    def _clear_suspects(self) -> None:
        """Let the dead letters of the row be committed."""
        for done in self._suspects:
            done()
        self._suspects.clear()
        self._moved.set()

    # --- commits ----------------------------------------------------------------------------------

    async def _commit_as_it_moves(self) -> NoReturn:
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self.commit()
            await asyncio.sleep(COMMIT_SECONDS)

    async def commit(self) -> None:
        """Commit what is done of the partitions that are ours."""
        self._offsets.keep(self._source.assignment())
        if offsets := self._offsets.to_commit():
            try:
                await self._source.commit(offsets)
            except (CommitFailedError, IllegalStateError) as exc:
                # They are someone else's now, who begins where we had committed before.
                log.warning("partitions given back", route=self._policy.route, error=repr(exc))
            else:
                self._offsets.committed(offsets)


def _first(several: BaseExceptionGroup[Exception]) -> Exception:
    """Return the error to go on with: a fault of ours before one that passes."""
    errors = [error for error in several.exceptions if isinstance(error, Exception)]
    return next((error for error in errors if not isinstance(error, Transient)), errors[0])


class Consumption:
    """A route's loop as its service runs it: begun again after what passes, stopped by a fault of ours.

    Args:
        route: its id.
        attempt: one life of the loop, from joining the group to an error.

    """

    def __init__(self, route: str, attempt: Callable[[], Awaitable[None]]) -> None:
        self.route = route
        self._attempt = attempt
        self._fault: CaravanError | None = None

    async def run(self) -> NoReturn:
        """Consume until the process ends; once stopped, only stay: a new process tries again."""
        try:
            await forever(self.route, self._watched)
        except Stopped as exc:
            self._fault = exc
            log.error("consumer stopped", route=self.route, error=str(exc))  # noqa: TRY400 - the trace was logged
            await asyncio.Event().wait()
            raise

    async def _watched(self) -> None:
        """Note that the broker refuses us, until an attempt has lasted a while."""
        lasted = asyncio.get_running_loop().call_later(LONGEST_WAIT, self._forget)
        try:
            await self._attempt()
        except Transient as exc:
            if isinstance(exc.__cause__, REFUSALS):
                self._fault = exc
            raise
        finally:
            lasted.cancel()

    def _forget(self) -> None:
        self._fault = None

    async def ping(self) -> None:
        """Check that the loop was not stopped, and that the broker lets it read, for `/readyz`.

        Raises:
            CaravanError: if not; the message says why.

        """
        if self._fault is not None:
            raise CaravanError(str(self._fault))


class LogAndContinue:
    """How a route without an effect takes messages: what cannot be read stays on its topic, passed over.

    Args:
        route: its id.

    """

    def __init__(self, route: str) -> None:
        self._route = route
        self._in_a_row = 0

    @contextmanager
    def of(self, record: ConsumerRecord) -> Iterator[None]:
        """Count and log what goes wrong with one message, a fault of ours too: it would be there again."""
        try:
            yield
        except BadInput as exc:
            telemetry.REFUSALS.labels(self._route, exc.reason).inc()
            log.warning("message ignored", topic=record.topic, offset=record.offset, reason=exc.detail)
        except Exception as exc:
            # A process that ended here would read the same again at its next start.
            self._in_a_row += 1
            telemetry.REFUSALS.labels(self._route, "unexpected").inc()
            trace = exc if self._in_a_row == 1 else None  # those after it are likely to be the same
            log.exception("message failed", route=self._route, offset=record.offset, exc_info=trace)
        else:
            self._in_a_row = 0
