"""Groups of edges, and products of one edge: how they are written, and what is refused."""

import pytest

from caravan.groups import learners, owner_of, parse_groups, parse_products, sharing, sources
from caravan.settings import EdgesSettings


def test_groups_are_named_with_their_edges() -> None:
    groups = parse_groups("north=edge1,edge2  south=edge7")
    assert groups == {"north": ("edge1", "edge2"), "south": ("edge7",)}
    assert [owner_of(edge, groups) for edge in ("edge1", "edge7", "edge3", "north")] == [
        "north",
        "south",
        "edge3",
        "north",
    ]
    assert parse_groups(" ") == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("north", "'north' is not a group: write it as north=edge1,edge2"),
        ("=edge1", "'=edge1' is not a group"),
        ("north=", "'north=' is not a group"),
        ("north=edge1, edge2", "'north=edge1,' is not a group"),
        ("north=edge1 north=edge2", "the group 'north' is named twice"),
        ("North=edge1", "'North' is not an id of a group: a DNS label"),
        ("xn--north=edge1", "cannot be an id of a group"),
        ("edge2=edge1", "'edge2' is an edge, and cannot be a group"),
        ("north=edge1 south=edge1", "the edge 'edge1' is named 2 times"),
        ("north=edge1,edge1", "the edge 'edge1' is named 2 times"),
        ("north=edge9", "'edge9' is none of EDGES"),
    ],
)
def test_what_is_no_group_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    monkeypatch.setenv("EDGES", "edge1 edge2")
    monkeypatch.setenv("EDGE_GROUPS", text)
    with pytest.raises(ValueError, match="edge_groups") as found:
        EdgesSettings()
    assert fault in str(found.value)


def test_groups_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert EdgesSettings().edge_groups == {}
    monkeypatch.setenv("EDGES", "edge1 edge2 edge3")
    monkeypatch.setenv("EDGE_GROUPS", "north=edge1,edge3")
    assert EdgesSettings().edge_groups == {"north": ("edge1", "edge3")}
    monkeypatch.setenv("EDGE_GROUPS", "")
    assert EdgesSettings().edge_groups == {}


GROUPS = {"north": ("edge1", "edge2", "edge3"), "south": ("edge7",)}
PRODUCTS = {"edge1": ("chai", "house blend"), "edge3": ("chai",)}


def test_products_are_named_with_the_edge_whose_they_are() -> None:
    assert parse_products("edge1=chai,house%20blend  edge3=chai") == PRODUCTS
    assert parse_products(" ") == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("edge1", "'edge1' is not whose products they are: write it as edge1=chai,house_blend"),
        ("edge1=chai,", "'edge1=chai,' is not whose products they are"),
        ("edge1=chai edge1=mate", "the edge 'edge1' is named twice"),
        ("edge1=chai,chai", "'chai' of edge1 is named 2 times"),
        ("edge9=chai", "'edge9' is in no group"),
        ("edge4=chai", "'edge4' is in no group"),
        ("north=chai", "'north' is in no group"),
        ("edge1=.chai", "'.chai' of edge1 cannot be a product: a class with images is"),
        ("edge1=tea/chai", "'tea/chai' of edge1 cannot be a product"),
        ("edge1=%20", "'' of edge1 cannot be a product"),
        ("edge1=other", "'other' cannot be a product of edge1 alone"),
    ],
)
def test_what_cannot_be_a_product_of_an_edge_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    monkeypatch.setenv("EDGES", "edge1 edge2 edge4")
    monkeypatch.setenv("EDGE_GROUPS", "north=edge1,edge2")
    monkeypatch.setenv("EDGE_PRODUCTS", text)
    with pytest.raises(ValueError, match="edge_products") as found:
        EdgesSettings()
    assert fault in str(found.value)


def test_an_edge_with_products_of_its_own_serves_its_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGES", "edge1 edge2 edge3")
    monkeypatch.setenv("EDGE_GROUPS", "north=edge1,edge2,edge3")
    monkeypatch.setenv("EDGE_PRODUCTS", "edge1=chai")
    settings = EdgesSettings()
    assert settings.sharing == {"north": ("edge2", "edge3")}
    assert [settings.owner_of(edge) for edge in settings.edges] == ["edge1", "north", "north"]
    assert sharing(GROUPS, dict.fromkeys(GROUPS["north"], ("chai",))) == {"south": ("edge7",)}


def test_what_one_edge_sends_is_learnt_by_its_group_first_and_then_by_those_with_products() -> None:
    for name in ("edge1", "edge2", "north"):
        assert learners(name, GROUPS, PRODUCTS) == ("north", "edge1", "edge3")
    assert learners("edge7", GROUPS, PRODUCTS) == ("south",)
    assert learners("edge9", GROUPS, PRODUCTS) == ("edge9",)
    assert learners("edge2", {"north": ("edge1",)}, PRODUCTS) == ("edge2",)
    assert learners("edge1", {"north": ("edge1",)}, PRODUCTS) == ("edge1",)


def test_a_product_of_an_edge_is_taught_by_it_to_its_own_model_alone() -> None:
    every, chai = frozenset(PRODUCTS["edge1"]), frozenset({"chai"})
    assert sources("north", GROUPS, PRODUCTS) == dict.fromkeys(GROUPS["north"], every)
    assert sources("edge1", GROUPS, PRODUCTS) == {"edge1": frozenset(), "edge2": every, "edge3": every}
    assert sources("edge3", GROUPS, PRODUCTS)["edge3"] == every - chai
    assert sources("edge2", GROUPS, PRODUCTS) == {"edge2": frozenset()}
    assert sources("edge9", GROUPS, PRODUCTS) == {"edge9": frozenset()}
