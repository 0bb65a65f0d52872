"""What no schema sees: whether what a rendered cluster names is there."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from caravan import http
from model_server.settings import PROMETHEUS_PATH
from support import containers, mosquitto
from support.dockerfiles import IMAGES, ROOT, parse
from support.manifests import Object, name_of, pod_of

WORKLOADS = ("Deployment", "StatefulSet")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


SOURCES = ROOT / "infra" / "model-server" / "model_server"


def _paths() -> set[str]:
    """Return what every service answers."""
    app = FastAPI()
    http.install(app, {})
    return {route.path for route in app.routes if isinstance(route, APIRoute)}


OUR_PATHS = _paths()
# Read, not imported: that would load TensorFlow.
PATHS = {"model-server": set(re.findall(r'"(/v2/health/\w+)"', Path(SOURCES, "v2.py").read_text()))}
METRICS = {"model-server": PROMETHEUS_PATH}


class Cluster:
    """The objects of one rendered overlay, by kind and name."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.objects = list(objects)

    def of(self, *kinds: str) -> list[Object]:
        """Return the objects of some kinds."""
        return [obj for obj in self.objects if obj["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object | None:
        """Return one object."""
        return next((obj for obj in self.of(kind) if obj["metadata"]["name"] == name), None)

    def pods(self) -> Iterator[tuple[Object, Object]]:
        """Yield each workload with its pod's template; a Task with the pod that it comes to."""
        for obj in self.of(*WORKLOADS):
            yield obj, obj["spec"]["template"]
        for obj in self.of("Task"):
            yield obj, pod_of(obj)

    def containers(self) -> Iterator[tuple[str, Object, Object]]:
        """Yield each container with its name in messages and its pod."""
        for obj, pod in self.pods():
            for container in pod["spec"]["containers"]:
                yield f"{name_of(obj)} {container['name']}", container, pod

    def faults(self) -> list[str]:
        """Say everything that is wrong."""
        workloads = (
            _images,
            _environments,
            _secrets,
            _services,
            _listening,
            _brokers,
            _scaled,
            _probes,
            _rights,
        )
        checks = (*workloads, _addresses, _pipelines, _triggers, _monitors)
        return [fault for check in checks for fault in check(self)]


def _images(cluster: Cluster) -> Iterator[str]:
    for where, container, _ in cluster.containers():
        image = containers.image_name(container["image"])
        if image is None and not re.search(r":\d[\w.-]*$", container["image"]):
            yield f"{where}: {container['image']} is not pinned to a version"
        elif image is not None and image not in IMAGES:
            yield f"{where}: {container['image']} is not built here"
        elif image is not None and not container["image"].endswith(f":{_version(image)}"):
            yield f"{where}: {container['image']} is not the version that is built here, {_version(image)}"


def _version(image: str) -> str:
    labels = dict(
        pair.split("=", 1)
        for step in parse(IMAGES[image].read_text())[-1].of("LABEL")
        for pair in step.arguments
    )
    return labels["org.opencontainers.image.version"]


def environment(cluster: Cluster, container: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Return what a container is told, secrets as a word, and the ConfigMaps that are missing."""
    env: dict[str, str] = {}
    missing = []
    for source in container.get("envFrom", ()):
        name = source["configMapRef"]["name"]
        found = cluster.named("ConfigMap", name)
        if found is None:
            missing.append(name)
        else:
            env |= found["data"]
    for entry in container.get("env", ()):
        env[entry["name"]] = entry.get("value", "secret")
    return env, missing


def _environments(cluster: Cluster) -> Iterator[str]:
    for where, container, pod in cluster.containers():
        image = containers.image_name(container["image"])
        env, missing = environment(cluster, container)
        yield from (f"{where}: there is no ConfigMap {name}" for name in missing)
        names = [entry["name"] for entry in container.get("env", ())]
        yield from (
            f"{where}: {name} is set twice" for name in sorted({n for n in names if names.count(n) > 1})
        )
        if image in IMAGES and (container.get("command") or ["python"])[0] == "python":
            yield from containers.faults(where, image, env, container.get("args", ()))
        mounts = [mount["mountPath"] for mount in container.get("volumeMounts", ())]
        for name, value in env.items():
            if value.startswith("/") and name in containers.PATHS and not _mounted(value, mounts):
                yield f"{where}: {name} is {value}, and nothing is mounted there"
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        yield from (
            f"{where}: there is no volume {mount['name']}"
            for mount in container.get("volumeMounts", ())
            if mount["name"] not in volumes | _claims(cluster, pod)
        )


def _mounted(path: str, mounts: Iterable[str]) -> bool:
    return any(path == mount or path.startswith(f"{mount}/") for mount in mounts)


def _claims(cluster: Cluster, pod: Mapping[str, Any]) -> set[str]:
    return {
        claim["metadata"]["name"]
        for obj in cluster.of("StatefulSet")
        if obj["spec"]["template"] is pod
        for claim in obj["spec"].get("volumeClaimTemplates", ())
    }


def secrets(cluster: Cluster) -> dict[str, set[str]]:
    """Return the secrets that pods need and that no object here brings about: name → keys."""
    needed: dict[str, set[str]] = {}
    for _, pod in cluster.pods():
        for volume in pod["spec"].get("volumes", ()):
            if "secret" in volume:
                items = {item["key"] for item in volume["secret"].get("items", ())}
                needed.setdefault(volume["secret"]["secretName"], set()).update(items)
        for container in pod["spec"]["containers"]:
            for entry in container.get("env", ()):
                if "valueFrom" in entry:
                    source = entry["valueFrom"]["secretKeyRef"]
                    needed.setdefault(source["name"], set()).add(source["key"])
    made = {user["metadata"]["name"] for user in cluster.of("KafkaUser")}
    made |= {f"{kafka['metadata']['name']}-cluster-ca-cert" for kafka in cluster.of("Kafka")}
    return {name: keys for name, keys in needed.items() if name not in made}


def _secrets(cluster: Cluster) -> Iterator[str]:
    users = {user["metadata"]["name"] for user in cluster.of("KafkaUser")}
    for where, container, _ in cluster.containers():
        env, _ = environment(cluster, container)
        user = env.get("KAFKA_SASL_USERNAME", "secret")
        if user != "secret" and user not in users:
            yield f"{where}: KAFKA_SASL_USERNAME is {user}, and there is no KafkaUser {user}"


def ports(pod: Mapping[str, Any]) -> dict[str | int, int]:
    """Return a pod's ports, by name and by number."""
    found: dict[str | int, int] = {}
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", ()):
            found |= {port.get("name", port["containerPort"]): port["containerPort"]}
            found |= {port["containerPort"]: port["containerPort"]}
    return found


def selected(cluster: Cluster, selector: Mapping[str, str]) -> list[Object]:
    """Return the pods whose labels fit."""
    return [pod for _, pod in cluster.pods() if selector.items() <= pod["metadata"].get("labels", {}).items()]


def _services(cluster: Cluster) -> Iterator[str]:
    for service in cluster.of("Service"):
        pods = selected(cluster, service["spec"]["selector"])
        if len(pods) != 1:
            yield f"{name_of(service)}: its selector fits {len(pods)} workloads, not one"
            continue
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if target not in ports(pods[0]):
                yield f"{name_of(service)}: targetPort {target} is no port of its pods"


def _listening(cluster: Cluster) -> Iterator[str]:
    for where, container, _ in cluster.containers():
        image = containers.image_name(container["image"])
        if image in IMAGES:
            exposed = {
                int(p) for step in parse(IMAGES[image].read_text())[-1].of("EXPOSE") for p in step.arguments
            }
            for port in container.get("ports", ()):
                if port["containerPort"] not in exposed:
                    yield f"{where}: the image does not listen on {port['containerPort']}"


def _brokers(cluster: Cluster) -> Iterator[str]:
    broker, config = cluster.named("StatefulSet", "mqtt"), cluster.named("ConfigMap", "mosquitto")
    if broker is not None and config is not None:
        listening = mosquitto.listens(config["data"]["mosquitto.conf"])
        if listening != set(ports(broker["spec"]["template"]).values()):
            yield f"{name_of(broker)}: mosquitto.conf has listeners on {sorted(listening)}"


def _scaled(cluster: Cluster) -> Iterator[str]:
    for obj in cluster.of("ScaledObject", "HorizontalPodAutoscaler"):
        target = obj["spec"]["scaleTargetRef"]
        if cluster.named(target.get("kind", "Deployment"), target["name"]) is None:
            yield f"{name_of(obj)}: there is no {target['name']} to be scaled"
    there = offered(cluster)
    for scaled in cluster.of("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            server = trigger["metadata"]["bootstrapServers"]
            # Asked from another namespace, so in full.
            full = re.fullmatch(rf"([\w-]+)\.{scaled['metadata']['namespace']}\.svc:(\d+)", server)
            if full is None or int(full[2]) not in there.get(full[1], set()):
                yield f"{name_of(scaled)}: {server} is not there"


def _probes(cluster: Cluster) -> Iterator[str]:
    for where, container, pod in cluster.containers():
        for kind in PROBES:
            probe = container.get(kind, {})
            for how in ("httpGet", "tcpSocket"):
                if how in probe and probe[how]["port"] not in ports(pod):
                    yield f"{where}: {kind} asks port {probe[how]['port']}, which it does not have"
            image = containers.image_name(container["image"])
            path = probe.get("httpGet", {}).get("path")
            if path is not None and image in IMAGES and path not in PATHS.get(image, OUR_PATHS):
                yield f"{where}: {kind} asks {path}, which {image} does not answer"


def _rights(cluster: Cluster) -> Iterator[str]:
    for obj, pod in cluster.pods():
        spec = pod["spec"]
        if obj["kind"] == "Task":
            continue
        if spec.get("enableServiceLinks") is not False:
            yield f"{name_of(obj)}: service links are on, and a Service named mqtt would set MQTT_PORT"
        if not spec.get("securityContext", {}).get("runAsNonRoot"):
            yield f"{name_of(obj)}: may run as root"
        for container in spec["containers"]:
            rights = container.get("securityContext", {})
            if (
                not rights.get("readOnlyRootFilesystem")
                or rights.get("allowPrivilegeEscalation") is not False
            ):
                yield f"{name_of(obj)} {container['name']}: may write its image's files, or gain rights"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{name_of(obj)} {container['name']}: has no limit of memory"


def offered(cluster: Cluster) -> dict[str, set[int]]:
    """Return what answers in the namespace: host → ports; operators' own Services among them."""
    found = {
        service["metadata"]["name"]: {port["port"] for port in service["spec"]["ports"]}
        for service in cluster.of("Service")
    }
    for kafka in cluster.of("Kafka"):
        listeners = kafka["spec"]["kafka"]["listeners"]
        found[f"{kafka['metadata']['name']}-kafka-bootstrap"] = {listener["port"] for listener in listeners}
    for listener in cluster.of("EventListener"):
        found[f"el-{listener['metadata']['name']}"] = {8080}
    for listener in cluster.of("Listener"):
        found.setdefault(listener["spec"]["host"], set()).add(listener["spec"]["port"])
    return found


def _addresses(cluster: Cluster) -> Iterator[str]:
    there = offered(cluster)
    for where, container, pod in cluster.containers():
        env, _ = environment(cluster, container)
        for name, host, port in addresses(env):
            if host == "127.0.0.1":
                if port not in ports(pod).values():
                    yield f"{where}: {name} names port {port} of its own pod, which has none"
            elif host not in there:
                yield f"{where}: {name} names {host}, which nothing here offers"
            elif port not in there[host]:
                yield f"{where}: {name} names {host}:{port}, and {host} has {sorted(there[host])}"


def addresses(env: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Yield the addresses in an environment: variable, host, port."""
    for name, value in env.items():
        for host, port in re.findall(r"(?:^|//|,)([a-z][a-z0-9-]*|127\.0\.0\.1):(\d+)", value):
            yield name, host, int(port)
    if "MQTT_HOST" in env:
        yield "MQTT_HOST", env["MQTT_HOST"], int(env.get("MQTT_PORT", "1883"))


def _pipelines(cluster: Cluster) -> Iterator[str]:
    for pipeline in cluster.of("Pipeline"):
        for use in (*pipeline["spec"]["tasks"], *pipeline["spec"].get("finally", ())):
            task = cluster.named("Task", use["taskRef"]["name"])
            where = f"{name_of(pipeline)} {use['name']}"
            if task is None:
                yield f"{where}: there is no Task {use['taskRef']['name']}"
                continue
            given = {param["name"]: param["value"] for param in use["params"]}
            declared = {param["name"]: param for param in task["spec"]["params"]}
            if given.keys() != declared.keys():
                yield f"{where}: gives {sorted(given)}, and the Task takes {sorted(declared)}"


def _triggers(cluster: Cluster) -> Iterator[str]:
    for listener in cluster.of("EventListener"):
        for trigger in listener["spec"]["triggers"]:
            for binding in trigger["bindings"]:
                if cluster.named("TriggerBinding", binding["ref"]) is None:
                    yield f"{name_of(listener)}: there is no TriggerBinding {binding['ref']}"
            if cluster.named("TriggerTemplate", trigger["template"]["ref"]) is None:
                yield f"{name_of(listener)}: there is no TriggerTemplate {trigger['template']['ref']}"


def _monitors(cluster: Cluster) -> Iterator[str]:
    for monitor in cluster.of("ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        services = [
            s for s in cluster.of("Service") if labels.items() <= s["metadata"].get("labels", {}).items()
        ]
        if len(services) != 1:
            yield f"{name_of(monitor)}: its selector fits {len(services)} Services, not one"
            continue
        for endpoint in monitor["spec"]["endpoints"]:
            if endpoint["port"] not in {port["name"] for port in services[0]["spec"]["ports"]}:
                yield f"{name_of(monitor)}: {endpoint['port']} is no port of {name_of(services[0])}"
            if endpoint["path"] != METRICS.get(monitor["metadata"]["name"], "/metrics"):
                yield f"{name_of(monitor)}: {endpoint['path']} is not where its metrics are"
    for route in cluster.of("Route"):
        service = cluster.named("Service", route["spec"]["to"]["name"])
        names = {port["name"] for port in service["spec"]["ports"]} if service else set()
        if route["spec"]["port"]["targetPort"] not in names:
            yield f"{name_of(route)}: leads to no port of a Service"
