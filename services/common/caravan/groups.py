"""Groups of edges that share one model: `north=edge1,edge2 south=edge7`. Pure.

A group's id stands where an edge's does: its versions are in `G-models` and `G-ready`. Images stay with the
edges, in `E-data`; and what an edge may serve is in its `E-ready`, as ever: there a version of its group is a
manifest alone, which says where the files are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from caravan.contracts import edge_faults

Groups = Mapping[str, tuple[str, ...]]
"""The edges of each group, by its id."""


def parse_groups(text: str) -> dict[str, tuple[str, ...]]:
    """Read groups, with spaces between them and commas between the edges of one.

    Raises:
        ValueError: naming what cannot be read.

    """
    found: dict[str, tuple[str, ...]] = {}
    for word in text.split():
        group, equals, edges = word.partition("=")
        members = tuple(edges.split(","))
        if not equals or not group or not all(members):
            raise ValueError(f"{word!r} is not a group: write it as north=edge1,edge2")
        if group in found:
            raise ValueError(f"the group {group!r} is named twice")
        found[group] = members
    return found


def group_faults(groups: Groups, edges: Collection[str]) -> list[str]:
    """Return what keeps these groups from being groups of these edges, a sentence each."""
    # Their buckets are named as those of edges are; topics of their own they have none.
    faults = [fault.replace("edge id", "id of a group") for group in groups for fault in edge_faults([group])]
    faults += [f"{group!r} is an edge, and cannot be a group" for group in groups if group in edges]
    counts = Counter(edge for members in groups.values() for edge in members)
    faults += [f"the edge {edge!r} is named {count} times" for edge, count in counts.items() if count > 1]
    return faults + [f"{edge!r} is none of EDGES" for edge in counts if edge not in edges]


def owner_of(edge: str, groups: Groups) -> str:
    """Return whose model an edge serves: its group's, or its own. A group's id is its own owner's."""
    return next((group for group, members in groups.items() if edge in members), edge)
