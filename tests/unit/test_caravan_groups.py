"""Groups of edges: how they are written, and what is refused."""

import pytest

from caravan.groups import owner_of, parse_groups
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
