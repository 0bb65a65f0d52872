"""Other people's brokers and stores in the place of the embedded ones."""

from pathlib import Path

import pytest

from local_stack.engines import choice
from local_stack.engines.engine import Engine
from local_stack.errors import StackError
from local_stack.parts import PARTS, Part
from local_stack.settings import StackSettings

ALL = {"KAFKA": "apache", "MQTT": "mosquitto", "S3": "versitygw"}


def row(name: str, **chosen: str) -> Part:
    (part,) = (part for part in choice.table(chosen) if part.name == name)
    return part


def test_without_a_choice_the_embedded_ones_run() -> None:
    assert choice.table({}) == PARTS
    assert StackSettings.read({"KAFKA": "", "S3": "embedded"}).engines == {}


def test_an_engine_that_there_is_not_is_named_with_those_that_there_are() -> None:
    with pytest.raises(StackError, match="KAFKA: 'redpanda' is none of embedded, apache"):
        StackSettings.read({"KAFKA": "redpanda"})


def test_the_choice_survives_the_way_to_the_supervisor() -> None:
    settings = StackSettings.read(ALL)
    assert settings.engines == ALL
    assert StackSettings.read(settings.environment()).engines == ALL


def test_every_engine_keeps_the_names_of_the_parts_and_the_ports_that_others_use() -> None:
    table = choice.table(ALL)
    kept_parts = [part for part in PARTS if part.name != "kafka-cleaner"]  # Apache Kafka has its own
    assert [part.name for part in table] == [part.name for part in kept_parts]
    for part, embedded in zip(table, kept_parts, strict=True):
        kept = {name for name, port in embedded.ports.items() if port.setting}
        assert kept <= set(part.ports)
        assert next(iter(part.ports)) == next(iter(embedded.ports))


@pytest.mark.parametrize(
    "name", ["feeder", "training", "delivery", "hub", "edge-manager", "shopper", "monitor"]
)
def test_every_service_reaches_apache_kafka_with_a_password_through_tls(name: str) -> None:
    env = row(name, KAFKA="apache").env
    assert env["KAFKA_SECURITY_PROTOCOL"] == "SASL_SSL"
    assert env["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:{kafka.secure}"
    assert env["KAFKA_SASL_PASSWORD"]


def test_only_services_of_an_edge_are_told_of_mosquitto() -> None:
    told = {part.name for part in choice.table({"MQTT": "mosquitto"}) if "MQTT_PASSWORD" in part.env}
    assert told == {"edge-manager", "shopper", "monitor"}


def test_a_program_that_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    engine = Engine({}, "X", programs={"a": (tmp_path / "a", "make engines"), "b": ("no-such-b", "get b")})
    with pytest.raises(StackError, match="make engines\nget b"):
        engine.found()
    (tmp_path / "a").touch()
    with pytest.raises(StackError, match=r"^get b$"):
        engine.found()
