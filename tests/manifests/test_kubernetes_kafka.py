"""Kafka as Strimzi makes it: the topics that there are, and whether each login may do what it has to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from caravan import contracts, replay
from delivery.settings import DeliverySettings
from feeder.settings import FeederSettings
from monitor.settings import MonitorSettings
from shopper.settings import ShopperSettings
from support.cluster import Cluster
from support.dockerfiles import ROOT
from support.overlays import rendered

CENTRAL = pytest.mark.parametrize("overlay", ["central", "full/central", "scaled/central"])
OF_TOPICS = {
    *("TRIGGER", "TRAINING_IMAGES", "TRAINING_IMAGES_RETRY", "EDGE_METRICS", "EDGE_STATUS"),
    *("events_topic", "images_topic", "detections_topic"),
}
"""Names of `caravan.contracts` that stand for topics."""


@dataclass(frozen=True)
class Use:
    """What a package does with topics, by their names in the contracts.

    With a consumer group it puts aside what it cannot handle; without one it only looks. What it parks, it
    reads again, as another group.
    """

    package: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    group: str = ""
    parks_on: str = ""


AT_CENTRAL = {
    "feeder": Use(
        "feeder",
        ("TRAINING_IMAGES",),
        ("TRIGGER", "events_topic"),
        FeederSettings().kafka_group,
        parks_on="TRAINING_IMAGES_RETRY",
    ),
    "delivery": Use("delivery", ("TRIGGER",), ("TRIGGER",), group=DeliverySettings().kafka_group),
    "training": Use("training", ("EDGE_STATUS",), ("events_topic", "EDGE_STATUS")),
    "hub": Use("monitor", ("EDGE_METRICS", "EDGE_STATUS", "events_topic")),
}
"""By login, what is done at central, for all edges."""


def at_edge(edge: str) -> list[Use]:
    """Return what the services of an edge do with its one login."""
    return [
        Use("monitor", ("events_topic",), group=MonitorSettings(edge=edge).group),
        Use(
            "shopper",
            ("images_topic",),
            ("detections_topic", "EDGE_METRICS", "EDGE_STATUS"),
            ShopperSettings(edge=edge).group,
        ),
        Use("edge_manager", writes=("EDGE_STATUS",)),
    ]


def topics(names: Iterable[str], edges: Iterable[str]) -> set[str]:
    """Return the topics that names in the contracts stand for."""
    found = set()
    for name in names:
        value = getattr(contracts, name)
        found |= {value} if isinstance(value, str) else {value(edge) for edge in edges}
    return found


def needed(uses: Iterable[Use], edges: Iterable[str]) -> set[tuple[str, str, str]]:
    """Return what a login has to be allowed: kind of resource, name, operation."""
    found: set[tuple[str, str, str]] = set()
    for use in uses:
        read, written = topics(use.reads, edges), topics(use.writes, edges)
        if use.group:
            written |= {contracts.dead_letter(topic) for topic in read}
            found.add(("group", use.group, "Read"))
        if use.parks_on:
            parked = topics([use.parks_on], edges)
            read, written = read | parked, written | parked
            found.add(("group", f"{use.group}-retry", "Read"))
        found |= {("topic", topic, op) for topic in read for op in ("Describe", "Read")}
        found |= {("topic", topic, op) for topic in written for op in ("Describe", "Write")}
    return found


def edges_of(cluster: Cluster) -> list[str]:
    users = {user["metadata"]["name"] for user in cluster.of("KafkaUser")}
    return sorted(users - AT_CENTRAL.keys())


def topics_of(cluster: Cluster) -> set[str]:
    return {topic["metadata"]["name"] for topic in cluster.of("KafkaTopic")}


def allowed(cluster: Cluster, login: str) -> set[tuple[str, str, str]]:
    """Return what a login may do with the topics that there are, and with groups."""
    user = cluster.named("KafkaUser", login)
    assert user is not None
    found = set()
    for acl in user["spec"]["authorization"]["acls"]:
        resource = acl["resource"]
        names = {resource["name"]}
        if resource["type"] == "topic":
            prefix = resource.get("patternType") == "prefix"
            names = {
                topic
                for topic in topics_of(cluster)
                if topic == resource["name"] or (prefix and topic.startswith(resource["name"]))
            }
            assert names, f"{login} is allowed {resource['name']}, which is no topic"
        found |= {(resource["type"], name, op) for name in names for op in acl["operations"]}
    return found


@CENTRAL
def test_the_topics_are_those_that_are_read_or_written_and_their_dead_letters(overlay: str) -> None:
    cluster = rendered(overlay)
    edges = edges_of(cluster)
    everything = needed(AT_CENTRAL.values(), edges)
    for edge in edges:
        everything |= needed(at_edge(edge), [edge])
    assert edges
    assert topics_of(cluster) == {name for kind, name, _ in everything if kind == "topic"}


@CENTRAL
def test_each_login_at_central_may_do_what_its_service_does(overlay: str) -> None:
    cluster = rendered(overlay)
    for login, use in AT_CENTRAL.items():
        assert needed([use], edges_of(cluster)) - allowed(cluster, login) == set(), login


@CENTRAL
def test_the_login_of_an_edge_may_do_what_its_services_do_and_nothing_else(overlay: str) -> None:
    cluster = rendered(overlay)
    for edge in edges_of(cluster):
        assert allowed(cluster, edge) == needed(at_edge(edge), [edge])


@CENTRAL
def test_the_hub_may_send_dead_letters_again(overlay: str) -> None:
    cluster = rendered(overlay)
    may = allowed(cluster, "hub")
    assert ("group", replay.GROUP, "Read") in may
    suffix = contracts.dead_letter("")
    letters = {topic for topic in topics_of(cluster) if topic.endswith(suffix)}
    assert letters
    for topic in letters:
        # What cannot be sent goes to the end of the letters.
        assert {("topic", topic, op) for op in ("Read", "Describe", "Write")} <= may
        # What was too large to be kept is read where it first came.
        first = topic.removesuffix(suffix)
        assert {("topic", first, "Read"), ("topic", first, "Write")} <= may


def test_the_topics_that_a_package_names_are_those_that_it_is_said_to_use_here() -> None:
    used: dict[str, set[str]] = {}
    for use in (*AT_CENTRAL.values(), *at_edge("edge1")):
        used.setdefault(use.package, set()).update(use.reads, use.writes, filter(None, [use.parks_on]))
    for package, names in used.items():
        (folder,) = (*ROOT.glob(f"services/*/{package}"), *ROOT.glob(f"infra/*/{package}"))
        code = "\n".join(path.read_text() for path in folder.rglob("*.py"))
        assert OF_TOPICS & set(re.findall(r"\b[A-Za-z_]+\b", code)) == names, package


@pytest.mark.parametrize(("overlay", "nodes"), [("central", 1), ("full/central", 3)])
def test_copies_of_a_topic_are_as_many_as_there_are_nodes(overlay: str, nodes: int) -> None:
    cluster = rendered(overlay)
    (pool,) = cluster.of("KafkaNodePool")
    (kafka,) = cluster.of("Kafka")
    config = kafka["spec"]["kafka"]["config"]
    assert pool["spec"]["replicas"] == nodes
    assert {value for name, value in config.items() if name.endswith("replication.factor")} == {nodes}
    assert config["min.insync.replicas"] == config["transaction.state.log.min.isr"] == max(1, nodes - 1)


@CENTRAL
def test_a_message_may_be_as_large_as_a_service_makes_it(overlay: str) -> None:
    cluster = rendered(overlay)
    largest = FeederSettings().kafka_max_message_bytes
    (kafka,) = cluster.of("Kafka")
    assert kafka["spec"]["kafka"]["config"]["replica.fetch.max.bytes"] > largest
    for topic in cluster.of("KafkaTopic"):
        name, config = topic["metadata"]["name"], topic["spec"]["config"]
        if name != contracts.EDGE_STATUS:
            assert config["max.message.bytes"] > largest, name
        assert (config.get("retention.ms") == -1) == name.endswith(contracts.dead_letter("")), name
