"""A rendered overlay as data: its objects, and what its pods are told, have and offer."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from support.manifests import Object, name_of, pod_of

WORKLOADS = ("Deployment", "StatefulSet")


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


def brokers(cluster: Cluster, at_least: int = 0) -> list[dict[str, str]]:
    """Return the labels of the brokers' pods as Strimzi gives them; `at_least` so many of each pool."""
    return [
        {
            "strimzi.io/cluster": kafka,
            "strimzi.io/kind": "Kafka",
            "strimzi.io/pool-name": pool["metadata"]["name"],
            "strimzi.io/pod-name": f"{kafka}-{pool['metadata']['name']}-{number}",
        }
        for pool in cluster.of("KafkaNodePool")
        for kafka in [pool["metadata"]["labels"]["strimzi.io/cluster"]]
        for number in range(max(pool["spec"]["replicas"], at_least))
    ]


def labels_of_runs(cluster: Cluster) -> list[dict[str, str]]:
    """Return what Tekton gives the pods of each kind of run: its labels."""
    templates = cluster.of("TriggerTemplate")
    return [
        dict(run["metadata"]["labels"]) for each in templates for run in each["spec"]["resourcetemplates"]
    ]


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


def addresses(env: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Yield the addresses in an environment: variable, host, port."""
    for name, value in env.items():
        for host, port in re.findall(r"(?:^|//|,)([a-z][a-z0-9-]*|127\.0\.0\.1):(\d+)", value):
            yield name, host, int(port)
    if "MQTT_HOST" in env:
        yield "MQTT_HOST", env["MQTT_HOST"], int(env.get("MQTT_PORT", "1883"))
