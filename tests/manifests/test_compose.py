"""The Compose files: valid, and about what is really there."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import compose

PLAIN = ("compose.yaml",)
TLS = ("compose.yaml", "compose.tls.yaml")
EVERY = pytest.mark.parametrize("files", [PLAIN, TLS], ids=["plain", "tls"])


@pytest.mark.parametrize("file", TLS)
def test_it_fits_the_compose_specification(file: str, tmp_path: Path) -> None:
    plain = tmp_path / file
    plain.write_text((compose.FOLDER / file).read_text().replace("!override ", ""))  # a tag, unknown to YAML
    tool = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [tool, "--builtin-schema", "vendor.compose-spec", plain],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@EVERY
def test_images_variables_addresses_ports_and_volumes_are_those_that_there_are(
    files: tuple[str, ...],
) -> None:
    whole = compose.load(*files)
    assert compose.faults(whole) == []
    assert compose.missing_files(whole) == []


def test_the_second_edge_is_the_first_under_another_name() -> None:
    services = compose.load(*PLAIN)["services"]
    first = {name: service for name, service in services.items() if name.endswith("edge1")}
    assert first
    for name, service in first.items():
        other = copy.deepcopy(services[name.replace("edge1", "edge2")])
        assert other.pop("profiles") == ["edge2"]
        for ports in (other, service):
            ports.pop("ports", None)
            ports.get("environment", {}).pop("MQTT_WS_URL", None)
        assert repr(other).replace("edge2", "edge1") == repr(service)


def test_ports_are_published_on_loopback_alone_and_none_twice() -> None:
    ports = [port for service in compose.load(*TLS)["services"].values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert len(ports) == len({port.split(":")[1] for port in ports})


def test_our_services_have_no_rights_and_a_file_system_that_they_cannot_write() -> None:
    for service in compose.load(*PLAIN)["services"].values():
        assert "no-new-privileges:true" in service["security_opt"]
        if service["image"].startswith("caravan/"):
            assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])


@pytest.mark.parametrize(
    ("service", "key", "value", "message"),
    [
        (
            "shopper-edge1",
            "FEEDER_URL",
            "http://feeder:8080",
            "FEEDER_URL names feeder:8080, on which feeder does not",
        ),
        ("shopper-edge1", "SCORE_ACURACY", "0.7", "SCORE_ACURACY is no setting of shopper"),
        ("delivery", "EVENTLISTENER_URL", None, "EVENTLISTENER_URL is not set"),
        ("feeder", "EDGES", "Edge_1", "is not an edge id"),
        (
            "shopper-edge1",
            "MQTT_WS_URL",
            "ws://localhost:9002",
            "MQTT_WS_URL names port 9002, which the broker",
        ),
        ("monitor-edge1", "MQTT_HOST", "mosquitto", "MQTT_HOST names mosquitto, which is no service"),
    ],
)
def test_a_planted_fault_in_a_variable_is_named(
    service: str, key: str, value: str | None, message: str
) -> None:
    whole: dict[str, Any] = copy.deepcopy(compose.load(*PLAIN))
    env = whole["services"][service]["environment"]
    if value is None:
        del env[key]
    else:
        env[key] = value
    assert any(fault.startswith(f"{service}: ") and message in fault for fault in compose.faults(whole))


def test_a_wrong_port_a_wrong_image_and_a_forgotten_volume_are_named() -> None:
    whole = copy.deepcopy(compose.load(*PLAIN))
    whole["services"]["feeder"]["ports"] = ["127.0.0.1:8081:8080"]
    whole["services"]["delivery"]["image"] = "caravan/delivry:dev"
    del whole["volumes"]["training"]
    whole["services"]["delivery"]["environment"] = {}
    found = compose.faults(whole)
    assert "feeder: publishes port 8080, on which caravan/feeder:dev does not listen" in found
    assert "delivery: caravan/delivry:dev is not built here" in found
    assert "training: training is not among the volumes" in found
