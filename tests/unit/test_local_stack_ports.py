"""Which ports a stack takes, and what is said where it cannot have them."""

import ast
import random
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local_stack.errors import StackError
from local_stack.ports import HeldPorts, plan_ports, why_blocked
from local_stack.settings import StackSettings, port_settings


def settings(**environment: str) -> StackSettings:
    return StackSettings.read({"CARAVAN_HOME": "/nowhere", **environment})


def never(_: int) -> str:
    return ""


def busy(*numbers: int) -> Callable[[int], str]:
    return lambda number: "is in use" if number in numbers else ""


def test_the_defaults_are_those_of_the_design() -> None:
    ports = plan_ports(settings(), never)
    first = {name: next(iter(chosen.values())) for name, chosen in ports.items()}
    assert first.pop("kafka-cleaner")  # which nobody but the supervisor asks
    assert first == {
        "s3-central": 9000,
        "kafka": 9092,
        "feeder": 8081,
        "training": 8085,
        "delivery": 8082,
        "hub": 8086,
        "s3-edge1": 9100,
        "mqtt-edge1": 1883,
        "model-server-edge1": 8501,
        "edge-manager-edge1": 8083,
        "shopper-edge1": 8080,
        "monitor-edge1": 8084,
    }
    assert ports["mqtt-edge1"]["websocket"] == 9001
    assert ports["model-server-edge1"]["grpc"] == 8500


def test_each_further_edge_adds_ten_to_its_own_ports_alone() -> None:
    ports = plan_ports(settings(EDGES="edge1 edge2 north", SHOPPER_PORT="7000"), never)
    assert [ports[f"shopper-{edge}"]["http"] for edge in ("edge1", "edge2", "north")] == [7000, 7010, 7020]
    assert ports["mqtt-north"] == {"mqtt": 1903, "mqtt5": 1904, "websocket": 9021}
    assert ports["feeder"]["http"] == 8081


def test_every_busy_port_is_named_at_once_with_the_setting_to_change() -> None:
    with pytest.raises(StackError) as fault:
        plan_ports(settings(EDGES="edge1 edge2"), busy(8080, 8090, 9092))
    assert str(fault.value).splitlines() == [
        "port 9092 (kafka) is in use: set KAFKA_PORT to another",
        "port 8080 (shopper of edge1) is in use: set SHOPPER_PORT to another",
        "port 8090 (shopper of edge2, SHOPPER_PORT + 10) is in use: set SHOPPER_PORT to another",
    ]


def test_a_port_wanted_twice_is_named_with_both() -> None:
    with pytest.raises(StackError, match=r"port 8081 is wanted by both \(feeder\) and \(shopper of edge1\)"):
        plan_ports(settings(SHOPPER_PORT="8081"), never)


def test_a_port_past_the_last_is_named() -> None:
    with pytest.raises(StackError, match=r"port 65540 \(mqtt of edge2, MQTT_PORT \+ 10\) does not exist"):
        plan_ports(settings(EDGES="edge1 edge2", MQTT_PORT="65530"), never)


def test_free_ports_are_all_different_and_ask_for_no_setting() -> None:
    ports = plan_ports(settings(EDGES="edge1 edge2", PORTS="free"), busy(*port_settings().values()))
    numbers = [number for chosen in ports.values() for number in chosen.values()]
    assert len(numbers) == len(set(numbers))
    assert not set(numbers) & set(port_settings().values())


def test_a_free_port_is_its_own_stacks_alone_and_a_part_of_it_may_listen_there() -> None:
    with HeldPorts() as held:
        first = plan_ports(settings(PORTS="free"), never, held.take)
        mine = {number for chosen in first.values() for number in chosen.values()}
        few = [*mine, *range(31_000, 31_200)]
        script = (
            "import random\n"
            "from local_stack.ports import HeldPorts, plan_ports\n"
            "from local_stack.settings import StackSettings\n"
            f"random.sample = lambda *_: {few}\n"
            'settings = StackSettings.read({"CARAVAN_HOME": "/nowhere", "PORTS": "free"})\n'
            "with HeldPorts() as held:\n"
            "    print(plan_ports(settings, take=held.take))"
        )
        command = [sys.executable, "-c", script]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        theirs = {number for chosen in ast.literal_eval(told).values() for number in chosen.values()}
        assert not mine & theirs
        for number in mine:
            with socket.create_server(("127.0.0.1", number)):
                assert why_blocked(number) == "is in use"
    with HeldPorts() as others:
        assert others.take(min(mine))


def test_inner_ports_keep_clear_of_the_chosen_ones() -> None:
    ports = plan_ports(settings(), never)
    inner = set(ports["s3-central"].values()) - {9000}
    assert len(inner) == 7
    assert not inner & set(port_settings().values())


def test_a_listening_socket_blocks_its_port_and_a_closed_one_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
        assert why_blocked(number) == "is in use"
    assert why_blocked(number) == ""


def test_every_fault_of_the_settings_is_named_at_once() -> None:
    with pytest.raises(StackError) as fault:
        settings(
            EDGES="edge1 Edge_2", PORTS="any", PARTS="kafka mqtt mosquitto", FEEDER_PORT="http", SITE="shop"
        )
    text = str(fault.value)
    assert "EDGES: 'Edge_2'" in text
    assert "PORTS: 'any'" in text
    assert "PARTS: no part 'mosquitto'" in text
    assert "FEEDER_PORT: 'http' is not a port" in text
    assert "SITE: 'shop' is none of both, central, edge" in text


@pytest.mark.parametrize(
    ("groups", "products", "fault"),
    [
        ("north", "edge1=chai", "EDGE_GROUPS: 'north' is not a group"),
        ("north=edge1,edge9", "", "EDGE_GROUPS: 'edge9' is none of EDGES"),
        ("north=edge1,edge2", "edge1", "EDGE_PRODUCTS: 'edge1' is not whose products they are"),
        ("", "edge1=chai", "EDGE_PRODUCTS: 'edge1' is in no group"),
    ],
)
def test_what_edges_cannot_share_or_have_for_themselves_is_named(
    groups: str, products: str, fault: str
) -> None:
    with pytest.raises(StackError, match=fault):
        settings(EDGES="edge1 edge2", EDGE_GROUPS=groups, EDGE_PRODUCTS=products)


def test_settings_survive_the_way_to_the_supervisor() -> None:
    shared = {"EDGE_GROUPS": "north=a,b", "EDGE_PRODUCTS": "a=chai"}
    chosen = settings(EDGES="a b", PARTS="kafka", FEEDER_PORT="7001", SITE="central", **shared)
    assert StackSettings.read(chosen.environment()) == chosen
    assert (chosen.edge_groups, chosen.edge_products) == ("north=a,b", "a=chai")


def test_a_relative_home_is_in_the_current_folder() -> None:
    assert StackSettings.read({}).home == Path.cwd() / ".caravan"


def test_parts_asked_for_bring_what_they_need() -> None:
    assert [row.name for row in settings(PARTS="monitor").rows] == [
        *("s3-central", "kafka-cleaner", "kafka", "mqtt", "monitor")
    ]
    assert [row.name for row in settings(PARTS="model-server").rows] == ["s3", "model-server"]


def test_an_edges_site_plans_no_port_of_central_and_minds_none_in_use() -> None:
    link = (9000, 9092, 8081)
    ports = plan_ports(settings(SITE="edge"), busy(*link))
    assert {name.rpartition("-")[2] for name in ports} == {"edge1"}
    with pytest.raises(StackError, match="port 9000"):
        plan_ports(settings(SITE="central"), busy(*link))


def test_free_ports_of_an_edge_keep_clear_of_the_links(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "sample", lambda _, most: range(20_500, 20_500 + most))
    edge = settings(
        SITE="edge", PORTS="free", KAFKA_PORT="20500", S3_CENTRAL_PORT="20501", FEEDER_PORT="20502"
    )
    ports = plan_ports(edge, never)
    assert min(number for chosen in ports.values() for number in chosen.values()) == 20503
    assert edge.across == {"s3-central": {"s3": 20501}, "kafka": {"kafka": 20500}, "feeder": {"http": 20502}}


def test_a_site_refuses_what_runs_at_the_other_one() -> None:
    with pytest.raises(StackError, match="PARTS: 'kafka' does not run at SITE=edge"):
        settings(SITE="edge", PARTS="kafka shopper")
    with pytest.raises(StackError, match="KAFKA: it runs at central"):
        settings(SITE="edge", KAFKA="apache")
