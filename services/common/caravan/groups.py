"""Groups of edges that share one model, `north=edge1,edge2`, and products of one edge alone. Pure.

A group's id stands where an edge's does: its versions are in `G-models` and `G-ready`. Images stay with the
edges, in `E-data`; and what an edge may serve is in its `E-ready`, as ever: there a version of its group is a
manifest alone, which says where the files are.

An edge that has products of its own, `edge1=chai,house_blend`, serves a model of its own, as if it were in no
group: but that learns from the images of all of them, and beside them its own products.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from urllib.parse import unquote

from caravan.contracts import OTHER, edge_faults
from caravan.names import FOLDER_RULE, as_class, is_folder

Groups = Mapping[str, tuple[str, ...]]
"""The edges of each group, by its id."""
Products = Mapping[str, tuple[str, ...]]
"""The classes that an edge has for itself, by its id."""


def parse_groups(text: str) -> dict[str, tuple[str, ...]]:
    """Read groups, with spaces between them and commas between the edges of one.

    Raises:
        ValueError: naming what cannot be read.

    """
    return _parse(text, "a group: write it as north=edge1,edge2", "the group")


def parse_products(text: str) -> dict[str, tuple[str, ...]]:
    """Read whose a product is, as groups are read: `edge1=chai,house_blend`; `%20` is a blank, `%2C` a comma.

    Raises:
        ValueError: naming what cannot be read.

    """
    found = _parse(text, "whose products they are: write it as edge1=chai,house_blend", "the edge")
    return {edge: tuple(as_class(unquote(name)) for name in names) for edge, names in found.items()}


def _parse(text: str, what: str, whose: str) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for word in text.split():
        name, equals, several = word.partition("=")
        members = tuple(several.split(","))
        if not equals or not name or not all(members):
            raise ValueError(f"{word!r} is not {what}")
        if name in found:
            raise ValueError(f"{whose} {name!r} is named twice")
        found[name] = members
    return found


def group_faults(groups: Groups, edges: Collection[str]) -> list[str]:
    """Return what keeps these groups from being groups of these edges, a sentence each."""
    # Their buckets are named as those of edges are; topics of their own they have none.
    faults = [fault.replace("edge id", "id of a group") for group in groups for fault in edge_faults([group])]
    faults += [f"{group!r} is an edge, and cannot be a group" for group in groups if group in edges]
    counts = Counter(edge for members in groups.values() for edge in members)
    faults += [f"the edge {edge!r} is named {count} times" for edge, count in counts.items() if count > 1]
    return faults + [f"{edge!r} is none of EDGES" for edge in counts if edge not in edges]


def product_faults(products: Products, groups: Groups) -> list[str]:
    """Return what keeps these from being products of edges of these groups, a sentence each."""
    grouped = {edge for members in groups.values() for edge in members}
    faults = [
        f"{edge!r} is in no group: all its products are its own" for edge in products if edge not in grouped
    ]
    for edge, names in products.items():
        faults += [
            f"{name!r} of {edge} cannot be a product: {FOLDER_RULE}" for name in names if not is_folder(name)
        ]
        faults += [
            f"{name!r} of {edge} is named {count} times"
            for name, count in Counter(names).items()
            if count > 1
        ]
        faults += [f"{OTHER!r} cannot be a product of {edge} alone"] if OTHER in names else []
    return faults


def sharing(groups: Groups, products: Products) -> dict[str, tuple[str, ...]]:
    """Return of each group the edges that serve what it learns; a group of which none does is left out."""
    left = {group: tuple(edge for edge in edges if edge not in products) for group, edges in groups.items()}
    return {group: edges for group, edges in left.items() if edges}


def learners(edge: str, groups: Groups, products: Products) -> tuple[str, ...]:
    """Return whose models learn from an edge's images, or a group's, in the order in which they are trained.

    The group's own comes first: what it has embedded the others need not embed.
    """
    group = next((group for group, edges in groups.items() if edge == group or edge in edges), None)
    if group is None:
        return (edge,)
    own = [each for each in groups[group] if each in products]
    return (*(name for name in sharing(groups, products) if name == group), *own)


def sources(owner: str, groups: Groups, products: Products) -> dict[str, frozenset[str]]:
    """Return from which edges' images a model learns, and which of their classes are none of its business.

    A product that an edge has for itself is taught by this edge, to its own model.
    """
    around = next(
        (
            edges
            for group, edges in groups.items()
            if owner == group or (owner in edges and owner in products)
        ),
        (owner,),
    )
    others = {name for edge in around for name in products.get(edge, ())}
    mine = frozenset(others.difference(products.get(owner, ())))
    return {edge: mine if edge == owner else frozenset(others) for edge in around}


def owner_of(edge: str, groups: Groups) -> str:
    """Return whose model an edge serves: its group's, or its own. A group's id is its own owner's."""
    return next((group for group, members in groups.items() if edge in members), edge)
