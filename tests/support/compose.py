"""The Compose files as data, and what is wrong with them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from support import containers, mosquitto
from support.dockerfiles import DOCKERFILE, IMAGES, ROOT, stages

FOLDER = ROOT / "infra" / "compose"
Services = dict[str, dict[str, Any]]

PORTS = {"apache/kafka": {9092, 19092}, "chrislusf/seaweedfs": {9000}, "tensorflow/serving": {8500, 8501}}
"""On what the engines listen, as these files configure them; Mosquitto has a file for it."""
MOSQUITTO_CONF = "/mosquitto/config/mosquitto.conf"


class _Override(list[Any]):
    """A list that takes the place of the one below, instead of being added to it."""


_LOADER: Any = type("Loader", (yaml.SafeLoader,), {})
_LOADER.add_constructor("!override", lambda loader, node: _Override(loader.construct_sequence(node)))


def load(*names: str) -> dict[str, Any]:
    """Read files, later ones over earlier ones, with the defaults of the variables."""
    whole: dict[str, Any] = {}
    for name in names:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (FOLDER / name).read_text())
        whole = _merged(whole, yaml.load(text, _LOADER))
    return whole


def _merged(below: Any, above: Any) -> Any:
    if isinstance(above, _Override):
        return above
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _merged(below.get(key), value) for key, value in above.items()}
    if isinstance(below, list) and isinstance(above, list):
        return below + above
    return above


def faults(whole: Mapping[str, Any]) -> list[str]:
    """Say what is wrong with the services: images, variables, addresses, ports, volumes, files."""
    services: Services = whole["services"]
    found: list[str] = []
    for name, service in services.items():
        image = containers.image_name(service["image"])
        env = {key: str(value) for key, value in service.get("environment", {}).items()}
        found += _image(name, service, image)
        if image in IMAGES:
            found += containers.faults(name, image, env, service.get("command", ()))
            found += _addresses(name, env, whole)
        found += [
            f"{name}: publishes port {port}, on which {service['image']} does not listen"
            for port in _published(service) - listens(service, whole)
        ]
        found += [
            f"{name}: waits for {other}, which is not there"
            for other in _waits(service)
            if other not in services
        ]
        found += _sources(name, service, whole)
    return found


def _image(name: str, service: Mapping[str, Any], image: str | None) -> list[str]:
    if image is None:
        pinned = re.search(r":\d[\w.-]*$", service["image"])
        return [] if pinned else [f"{name}: {service['image']} is not pinned to a version"]
    if image not in IMAGES:
        return [f"{name}: {service['image']} is not built here"]
    build = service.get("build", {})
    file = (FOLDER / build.get("context", "") / build.get("dockerfile", "")).resolve()
    built = build.get("args", {}).get("SERVICE")
    is_right = (file, built) == (DOCKERFILE, image)
    return [] if is_right else [f"{name}: {service['image']} is built as {built} from {file}"]


def listens(service: Mapping[str, Any], whole: Mapping[str, Any]) -> set[int]:
    """Return the ports on which a service's containers listen."""
    files = [c["source"] for c in service.get("configs", ()) if c["target"] == MOSQUITTO_CONF]
    if files:  # of several for one place, the last one counts
        return mosquitto.listens((FOLDER / whole["configs"][files[-1]]["file"]).read_text())
    image = containers.image_name(service["image"])
    if image in IMAGES:
        return stages(image)[-1].exposed
    return next((ports for part, ports in PORTS.items() if part in service["image"]), set())


def _published(service: Mapping[str, Any]) -> set[int]:
    return {int(str(port).rsplit(":", 1)[-1]) for port in service.get("ports", ())}


def _addresses(name: str, env: Mapping[str, str], whole: Mapping[str, Any]) -> list[str]:
    services: Services = whole["services"]
    found = []
    named = [
        (variable, host, int(port))
        for variable, value in env.items()
        if variable != "MQTT_WS_URL"
        for host, port in re.findall(r"(?:^|[/,])([a-z][a-z0-9-]*):(\d+)", value)
    ]
    if "MQTT_HOST" in env:
        named.append(("MQTT_HOST", env["MQTT_HOST"], int(env.get("MQTT_PORT", "1883"))))
    for variable, host, port in named:
        if host not in services:
            found.append(f"{name}: {variable} names {host}, which is no service")
        elif port not in listens(services[host], whole):
            found.append(f"{name}: {variable} names {host}:{port}, on which {host} does not listen")
    outside = urlsplit(env.get("MQTT_WS_URL", "")).port  # for browsers
    broker = services.get(env.get("MQTT_HOST", ""), {})
    if outside and f"127.0.0.1:{outside}:{mosquitto.WEBSOCKET}" not in broker.get("ports", ()):
        found.append(f"{name}: MQTT_WS_URL names port {outside}, which the broker does not publish")
    return found


def _waits(service: Mapping[str, Any]) -> list[str]:
    return list(service.get("depends_on", ()))


def _sources(name: str, service: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
    found = []
    for kind in ("configs", "secrets"):
        for entry in service.get(kind, ()):
            source = entry if isinstance(entry, str) else entry["source"]
            if source not in whole.get(kind, {}):
                found.append(f"{name}: {source} is not among the {kind}")
    for entry in service.get("volumes", ()):
        source = entry["source"] if isinstance(entry, dict) else entry.split(":")[0]
        if source not in whole["volumes"]:
            found.append(f"{name}: {source} is not among the volumes")
    return found


def missing_files(whole: Mapping[str, Any]) -> list[str]:
    """Return the files that configs name and that are not there."""
    return [
        entry["file"]
        for entry in whole.get("configs", {}).values()
        if not Path(FOLDER, entry["file"]).exists()
    ]
