"""Carries the rollouts of groups on: FROM what edges say on `edge-status` → decide → TO their `E-ready`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog
from aiokafka import ConsumerRecord

from caravan import model_index, retry, rollouts
from caravan.contracts import LONGEST_FACT, model_rejected_event
from caravan.errors import CaravanError, Permanent
from caravan.names import cut
from caravan.rollout import Rollout, Told
from training import versions
from training.hearing import Hearing
from training.publish import Key, publish_again
from training.rollout import Step, Word, Words, decide, differing, is_served
from training.sharing import Announce, share
from training.stores import Stores

log = structlog.get_logger()

SILENT_SECONDS = 150.0
"""Seconds after which an edge counts as silent: two of its minutely words are missing."""

SOON_SECONDS = 1.0
"""What edges say within it is one reason to look: each look reads the rollout, and may write it."""

MOST_NUMBERS = 10_000
"""Numbers of edges' versions that are kept in memory; beyond them the manifest is read again."""

AGAIN_SECONDS = 3600.0
"""Seconds after which a rollout that is not done is told again: a dashboard that starts reads a day."""

ALL = ""
"""In place of a model's name: all that a group has."""

Tell = Callable[[Told], Awaitable[None]]
"""Tells, best effort, how a rollout stands."""


async def go_back(stores: Stores, model: str, key: Key) -> None:
    """Where a rollout was stopped, publish the version before once more, as the group's newest.

    A repeat changes nothing. Its members are offered it by `share`.

    Raises:
        Transient: if the store is away.

    """
    found = (await rollouts.read(stores.models, model))[0] if stores.rings else None
    if found is None or found.state != "stopped" or not found.before:
        return
    newest = await versions.newest_complete(stores.ready, model)
    if newest is None or newest.version != found.version:
        return
    before = await versions.whole(stores.models, model, found.before)
    if before is None:
        return  # Its edges go back to it all the same.
    try:
        await publish_again(stores, before, key)
    except Permanent as exc:
        log.warning("the version before cannot be published again", group=stores.edge, error=str(exc))


@dataclass(frozen=True)
class _Served:
    """Since when, by the loop's clock, a ring's edges serve a version."""

    version: int
    ring: int
    since: float


class Rolling:
    """The rollouts of groups of edges.

    Args:
        groups: their buckets, by their ids.
        key: with what versions are signed.
        announce: sends an event to an edge.
        tell: see `Tell`.
        soak: seconds for which a ring's edges serve a version before it goes on, where none compares.
        again: seconds after which a rollout that is not done is told again.
        clock: seconds since 1970.

    """

    def __init__(
        self,
        groups: Mapping[str, Stores],
        key: Key,
        announce: Announce,
        tell: Tell,
        *,
        soak: float,
        again: float = AGAIN_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._groups, self._key, self._announce, self._tell = groups, key, announce, tell
        self._soak, self._again, self._clock = soak, again, clock
        self._owners = {member.edge: name for name, stores in groups.items() for member in stores.members}
        self._hearing = Hearing(self._owners)
        self._due: dict[tuple[str, str], float] = {}
        """When to look at a rollout again, by the loop's clock."""
        self._changed = asyncio.Event()
        self.is_read = asyncio.Event()
        """Set once all is heard that was said before the start: before that nothing is decided."""
        self._failures: dict[tuple[str, str], int] = {}
        self._settled: dict[tuple[str, str], tuple[int, int, str]] = {}
        self._served: dict[tuple[str, str], _Served] = {}
        self._told: dict[tuple[str, str], float] = {}
        """When a rollout was told, by the loop's clock."""
        self._numbers: dict[tuple[str, str, int], int] = {}

    def hear(self, record: ConsumerRecord, at: float) -> None:
        """Take in what an edge says; `at` is when it did, seconds since 1970."""
        for edge, model in self._hearing.take(record, at):
            self._look_at(self._owners[edge], model, SOON_SECONDS)

    def look(self, group: str) -> None:
        """See to all rollouts of a group soon: there may be a new one, or a person's word."""
        self._look_at(group, ALL)

    async def begun(self) -> float:
        """Return when the first rollout began that edges may still change, seconds since 1970; now for none.

        Raises:
            Transient: if the store is away.

        """
        begun = [self._clock()]
        for stores in self._groups.values():
            for model in await rollouts.models(stores.models):
                with suppress(Permanent):  # Told of where it is carried on.
                    found, _ = await rollouts.read(stores.models, model)
                    if found is not None and found.is_live:
                        begun.append(found.began)
        return min(begun)

    async def work(self) -> None:
        """See to each rollout when an edge says something new of its model, and when time has to tell."""
        await self.is_read.wait()
        for group in self._groups:
            self.look(group)
        clock = asyncio.get_running_loop().time
        while True:
            self._changed.clear()
            for one in [one for one, at in self._due.items() if at <= clock()]:
                del self._due[one]
                await self._one(*one)
            try:
                async with asyncio.timeout_at(min(self._due.values(), default=None)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _look_at(self, group: str, model: str, after: float = 0) -> None:
        at = asyncio.get_running_loop().time() + after
        self._due[group, model] = min(at, self._due.get((group, model), at))
        self._changed.set()

    async def _one(self, group: str, model: str) -> None:
        """Carry one on; where that fails it is tried again, and holds up no other."""
        try:
            if model == ALL:
                for each in await model_index.models(self._groups[group].ready):
                    self._look_at(group, each)
            else:
                await self.carry_on(group, model)
            self._failures.pop((group, model), None)
        except (CaravanError, FileNotFoundError) as exc:
            failures = self._failures[group, model] = self._failures.get((group, model), 0) + 1
            log.warning("a rollout is not carried on now", group=group, model=model, error=str(exc))
            self._look_at(group, model, retry.pause(failures))

    async def carry_on(self, group: str, model: str) -> None:
        """Take every step that a rollout can take by what is known now.

        Raises:
            Transient: if the store is away.

        """
        stores = self._groups[group]
        while True:
            found, etag = await rollouts.read(stores.models, model)
            mark = None if found is None else (found.version, found.ring, found.state)
            if mark is None or self._settled.get((group, model)) != mark:
                await go_back(stores, model, self._key)
                await share(stores, model, self._key, self._announce)
                if found is None:
                    if (await rollouts.read(stores.models, model))[0] is None:
                        return  # There is no version.
                    continue
                self._settled[group, model] = (found.version, found.ring, found.state)
                await self._say_so(stores, model, found)
                continue
            if found is None or found.state == "done":
                return
            if self._untold(stores, model) <= 0:
                await self._say_so(stores, model, found)
            if not found.is_live:
                self._look_at(group, model, self._untold(stores, model))
                return
            step = await self._step(stores, model, found)
            changed = _after(found, step, stores.member_edges)
            if changed is None:
                await self._wait(stores, model, found, etag, step)
                return
            if await rollouts.write(stores.models, model, changed, etag):
                self._say(stores, model, found, changed)

    def _say(self, stores: Stores, model: str, found: Rollout, changed: Rollout) -> None:
        facts = {"group": stores.edge, "model": model, "version": changed.version, "why": changed.why}
        log.info("a rollout changes", **facts, state=changed.state, ring=changed.ring)
        if changed.state != "stopped":
            return
        reason = f"stopped in ring {changed.ring} of {changed.count}: {changed.why}"
        for edge in found.reaches(stores.member_edges):
            self._announce(model_rejected_event(model, changed.version, reason, edge=edge))

    async def _wait(self, stores: Stores, model: str, found: Rollout, etag: str | None, step: Step) -> None:
        """Note what is waited for, and when time alone may change that."""
        one = stores.edge, model
        why = cut(step.why, LONGEST_FACT)
        if found.state == "rolling" and found.why != why:
            noted = replace(found, why=why, numbers=dict(step.numbers), differing=step.differing)
            if await rollouts.write(stores.models, model, noted, etag):
                await self._say_so(stores, model, noted)
        served = self._served.get(one)
        left = SILENT_SECONDS
        if served is not None:
            soaked = served.since + self._soak - asyncio.get_running_loop().time()
            left = min(left, soaked) if soaked > 0 else left
        self._look_at(*one, left)

    async def _say_so(self, stores: Stores, model: str, found: Rollout) -> None:
        self._told[stores.edge, model] = asyncio.get_running_loop().time()
        await self._tell(Told(stores.edge, model, stores.member_edges, found))

    def _untold(self, stores: Stores, model: str) -> float:
        """Return in how many seconds a rollout is to be told again."""
        told = self._told.get((stores.edge, model), float("-inf"))
        return told + self._again - asyncio.get_running_loop().time()

    async def _step(self, stores: Stores, model: str, found: Rollout) -> Step:
        edges = stores.member_edges
        words = await self._words(stores, model, found)
        is_last = found.next_ring(edges) is None
        one, now = (stores.edge, model), asyncio.get_running_loop().time()
        if is_served(words, is_last=is_last):
            served = self._served.get(one)
            if served is None or (served.version, served.ring) != (found.version, found.ring):
                served = self._served[one] = _Served(found.version, found.ring, now)
            lasted = now - served.since
        else:
            self._served.pop(one, None)
            lasted = 0.0
        step = decide(words, found.newly(edges), is_last=is_last, served=lasted, soak=self._soak)
        return replace(step, differing=differing(words))

    async def _words(self, stores: Stores, model: str, found: Rollout) -> Words:
        """Return what each edge that is offered the version says of it."""
        members = {member.edge: member for member in stores.members}
        return {
            edge: await self._word(members[edge], model, found) for edge in found.reaches(stores.member_edges)
        }

    async def _word(self, member: Stores, model: str, found: Rollout) -> Word:
        said = self._hearing.said(member.edge, model)
        finding = said.finding

        async def is_it(number: int) -> bool:
            # A number of an edge's is never below that of the group's version.
            return number >= found.version and await self._of_group(member, model, number) == found.version

        refused = [
            why or "it does not say why" for number, why in said.refused.items() if await is_it(number)
        ]
        serves = await is_it(said.serving)
        word = Word(
            serves,
            refused[0] if refused and not serves else "",
            self._hearing.silent_for(member.edge, self._clock()) > SILENT_SECONDS,
        )
        if finding is None or not await is_it(finding.evidence.version):
            return word
        told = replace(finding.evidence, version=found.version, beside=found.before)
        return replace(word, evidence=told, differing=finding.differing)

    async def _of_group(self, member: Stores, model: str, number: int) -> int:
        """Return the group's number of a version that an edge has; 0 if it is none of the group's."""
        one = (member.edge, model, number)  # A number never comes to mean another version.
        if one not in self._numbers:
            manifest = await versions.read_manifest(member.ready, model, number)
            shared = None if manifest is None else manifest.shared
            is_its = shared is not None and shared.group == self._owners[member.edge]
            while len(self._numbers) >= MOST_NUMBERS:
                del self._numbers[next(iter(self._numbers))]
            self._numbers[one] = shared.version if shared is not None and is_its else 0
        return self._numbers[one]


def _after(found: Rollout, step: Step, edges: tuple[str, ...]) -> Rollout | None:
    """Return a rollout after a step; None if it stays as it is."""
    if step.does == "stop":
        return found.changed("stopped", step.why, step.numbers, step.differing)
    if step.does == "wait" or found.state == "held":
        return None
    further = found.next_ring(edges)
    return found.changed(
        "rolling" if further else "done", step.why, step.numbers, step.differing, ring=further
    )
