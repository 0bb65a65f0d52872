"""Whether a rollout goes on, waits or stops: decided by what the edges say. Pure.

- It **stops** when the version before did better (`evidence.verdict`, of all edges that have the version, or
  of those of the newest ring alone), or when at least two edges refuse the version and these are more than a
  tenth of those that have it; one is enough where no other has it.
- It **goes on** when at least nine tenths of the edges serve it, and the evidence of the newest ring says
  that it is not worse; where none of these compares, once they have served it for a while.
- In the last ring it is **done** by the same rule, but edges that are silent are not waited for.
- Else it **waits**.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, zip_longest
from typing import Literal

from caravan.evidence import MOST_SHOWN, Differing, Evidence, total, verdict

FEW = 2
"""Edges that refuse a version before it is stopped, where more than these have it."""
SHARE = 10
"""One of so many edges may be without the version, or refuse it, and the rollout goes on."""
NAMED = 3
"""Edges that are named one by one."""


@dataclass(frozen=True, slots=True)
class Word:
    """What an edge is known to do with a version.

    Attributes:
        serves: it answers with the version.
        refused: why it refuses it; empty if it does not.
        is_silent: it has not been heard of for a while.
        evidence: what it found of the version beside the one before; None if it does not compare.
        differing: images that it names, the newest first.

    """

    serves: bool = False
    refused: str = ""
    is_silent: bool = True
    evidence: Evidence | None = None
    differing: tuple[Differing, ...] = ()


Words = Mapping[str, Word]


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done next, why, and the numbers and images that this stands on."""

    does: Literal["wait", "go-on", "stop"]
    why: str
    numbers: Mapping[str, int] = field(default_factory=dict)
    differing: tuple[Differing, ...] = ()


def differing(words: Words) -> tuple[Differing, ...]:
    """Return the images to look at: the newest of each edge, then the next ones, as far as there is room."""
    by_edge = ([replace(each, edge=edge) for each in word.differing] for edge, word in words.items())
    newest = chain.from_iterable(zip_longest(*by_edge))
    return tuple(each for each in newest if each is not None)[:MOST_SHOWN]


def is_served(words: Words, *, is_last: bool) -> bool:
    """Tell whether as many edges serve the version as a ring needs: see above."""
    return any(word.serves for word in words.values()) and len(_missing(words, is_last)) <= _spared(words)


def decide(words: Words, newly: Collection[str], *, is_last: bool, served: float, soak: float) -> Step:
    """Return the next step of a rollout.

    Args:
        words: of the edges that are offered the version; evidence is by the group's number of it.
        newly: those of them that no ring before reached.
        is_last: whether no ring with more edges follows.
        served: seconds for which `is_served` has been so.
        soak: seconds of it that are asked for where no edge compares.

    """
    refused = {edge: word.refused for edge, word in words.items() if word.refused}
    of_all, of_ring = _evidence(words, words), _evidence(words, newly)
    numbers = {
        "edges": len(words),
        "serving": sum(word.serves for word in words.values()),
        "refused": len(refused),
    } | ({} if of_all is None else of_all.counts)
    if len(refused) > max(FEW - 1, len(words) // SHARE) or (words and len(refused) == len(words)):
        one, why = next(iter(refused.items()))
        said = f"{len(refused)} of {len(words)} edges refuse it: {_names(refused)}; {one} says: {why}"
        return Step("stop", said, numbers)
    for found in (of_all, of_ring):
        if found is not None and (told := verdict(found)).outcome == "stop":
            return Step("stop", told.says, numbers)
    if not is_served(words, is_last=is_last):
        missing = _missing(words, is_last) or words.keys()
        said = f"{len(missing)} of {len(words)} edges are waited for: {_told(words, missing)}"
        return Step("wait", said, numbers)
    if of_ring is None:
        served_by = f"{numbers['serving']} of {len(words)} edges serve it"
        if served < soak:
            return Step("wait", f"{served_by}, for {soak:g} s before it goes on", numbers)
        return Step("go-on", f"{served_by}, and none had anything against it for {soak:g} s", numbers)
    told = verdict(of_ring)
    return Step("go-on" if told.outcome == "promote" else "wait", told.says, numbers)


def _missing(words: Words, is_last: bool) -> list[str]:
    """Return the edges that are waited for."""
    missing = [edge for edge, word in words.items() if not word.serves]
    return [e for e in missing if not (words[e].is_silent or words[e].refused)] if is_last else missing


def _spared(words: Words) -> int:
    return len(words) // SHARE


def _evidence(words: Words, edges: Collection[str]) -> Evidence | None:
    found = [evidence for edge in edges if (evidence := words[edge].evidence) is not None]
    return total(found) if found else None


def _told(words: Words, edges: Collection[str]) -> str:
    return "; ".join(f"{edge} {_doing(words[edge])}" for edge in list(edges)[:NAMED])


def _doing(word: Word) -> str:
    if word.refused:
        return f"refuses it: {word.refused}"
    return "is silent" if word.is_silent else "does not serve it yet"


def _names(edges: Collection[str]) -> str:
    few = list(edges)[:NAMED]
    return ", ".join(few) + (f" and {len(edges) - NAMED} more" if len(edges) > NAMED else "")
