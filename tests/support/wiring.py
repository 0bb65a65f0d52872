"""What no schema sees: whether what a rendered cluster names is there."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from caravan import http
from model_server.settings import PROMETHEUS_PATH
from support import containers, mosquitto
from support.cluster import (
    Cluster,
    addresses,
    brokers,
    environment,
    labels_of_runs,
    offered,
    ports,
    selected,
)
from support.dockerfiles import IMAGES, ROOT, VERSION, stages
from support.manifests import Object, name_of
from support.policies import ROUTER

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
METRICS = {"model-server": PROMETHEUS_PATH}


@cache
def paths(image: str) -> set[str]:
    """Return what an image answers to those who watch over it."""
    if image == "model-server":  # read, not imported: that would load TensorFlow
        return set(
            re.findall(
                r'"(/v2/health/\w+)"', (ROOT / "infra/model-server/model_server/doors/v2_rest.py").read_text()
            )
        )
    app = FastAPI()
    http.install(app, {})
    return {route.path for route in app.routes if isinstance(route, APIRoute)}


def faults(cluster: Cluster) -> list[str]:
    """Say everything that is wrong."""
    pods = (_images, _environments, _secrets, _listening, _brokers, _probes, _rights)
    named = (_services, _scaled, _addresses, _pipelines, _triggers, _monitors, _strimzi, _accounts, _claimed)
    checks = (*pods, *named, _selectors)
    return [fault for check in checks for fault in check(cluster)]


def _images(cluster: Cluster) -> Iterator[str]:
    for where, container, _ in cluster.containers():
        image = containers.image_name(container["image"])
        if image is None and not re.search(r":\d[\w.-]*$", container["image"]):
            yield f"{where}: {container['image']} is not pinned to a version"
        elif image is not None and image not in IMAGES:
            yield f"{where}: {container['image']} is not built here"
        elif image is not None and not container["image"].endswith(f":{VERSION}"):
            yield f"{where}: {container['image']} is not the version that is built here, {VERSION}"


def _environments(cluster: Cluster) -> Iterator[str]:
    for where, container, pod in cluster.containers():
        image = containers.image_name(container["image"])
        env, missing = environment(cluster, container)
        yield from (f"{where}: there is no ConfigMap {name}" for name in missing)
        names = [entry["name"] for entry in container.get("env", ())]
        yield from (
            f"{where}: {name} is set twice" for name in sorted({n for n in names if names.count(n) > 1})
        )
        # One that sleeps waits for commands, which are told the same.
        if image in IMAGES and (container.get("command") or ["python"])[0] in {"python", "sleep"}:
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


def _secrets(cluster: Cluster) -> Iterator[str]:
    users = {user["metadata"]["name"] for user in cluster.of("KafkaUser")}
    for where, container, _ in cluster.containers():
        env, _ = environment(cluster, container)
        user = env.get("KAFKA_SASL_USERNAME", "secret")
        if user != "secret" and user not in users:
            yield f"{where}: KAFKA_SASL_USERNAME is {user}, and there is no KafkaUser {user}"


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
            exposed = stages(image)[-1].exposed
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
    groups = {
        acl["resource"]["name"]
        for user in cluster.of("KafkaUser")
        for acl in user["spec"]["authorization"]["acls"]
        if acl["resource"]["type"] == "group"
    }
    for scaled in cluster.of("ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            facts = trigger["metadata"]
            if cluster.named("TriggerAuthentication", trigger["authenticationRef"]["name"]) is None:
                yield f"{name_of(scaled)}: there is no TriggerAuthentication to ask with"
            if cluster.named("KafkaTopic", facts["topic"]) is None:
                yield f"{name_of(scaled)}: there is no KafkaTopic {facts['topic']}"
            if facts["consumerGroup"] not in groups:
                yield f"{name_of(scaled)}: nobody reads as group {facts['consumerGroup']}"
            server = trigger["metadata"]["bootstrapServers"]
            # Asked from another namespace, so in full.
            full = re.fullmatch(rf"([\w-]+)\.{scaled['metadata']['namespace']}\.svc:(\d+)", server)
            if full is None or int(full[2]) not in there.get(full[1], set()):
                yield f"{name_of(scaled)}: {server} is not there"


def _selectors(cluster: Cluster) -> Iterator[str]:
    """Look at every label selector, wherever it stands: each of its values has to fit something."""
    runs, services = labels_of_runs(cluster), [s["metadata"].get("labels", {}) for s in cluster.of("Service")]
    router = [ROUTER] if cluster.of("Site") else []
    pods = [pod["metadata"].get("labels", {}) for _, pod in cluster.pods()]
    there = [labels for labels in (*pods, *runs, *services, *router, *brokers(cluster)) if labels]
    for obj in cluster.objects:
        for selector in _label_selectors(obj):
            for wanted in _narrowed(selector):
                if not any(wanted.items() <= labels.items() for labels in there):
                    yield f"{name_of(obj)}: {wanted} fits nothing"
    for obj in cluster.of("Deployment", "StatefulSet"):
        own = obj["spec"]["template"]["metadata"]["labels"]
        if not obj["spec"]["selector"]["matchLabels"].items() <= own.items():
            yield f"{name_of(obj)}: its selector does not fit its own pods"


def _label_selectors(node: Any) -> Iterator[Object]:
    if isinstance(node, list):
        for value in node:
            yield from _label_selectors(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("selector", "podSelector", "labelSelector") and isinstance(value, dict):
                yield value
            yield from _label_selectors(value)


def _narrowed(selector: Object) -> Iterator[Mapping[str, str]]:
    """Yield the labels that a selector asks for, once for each value that it leaves to choose."""
    of_labels = selector.keys() & {"matchLabels", "matchExpressions"}
    labels = selector.get("matchLabels", {}) if of_labels else selector
    choices = [
        {expression["key"]: value}
        for expression in selector.get("matchExpressions", ())
        if expression["operator"] == "In"
        for value in expression["values"]
    ]
    yield from ({**labels, **choice} for choice in choices or [{}])


def _strimzi(cluster: Cluster) -> Iterator[str]:
    clusters = {kafka["metadata"]["name"] for kafka in cluster.of("Kafka")}
    for obj in cluster.of("KafkaNodePool", "KafkaTopic", "KafkaUser"):
        name = obj["metadata"].get("labels", {}).get("strimzi.io/cluster")
        if name not in clusters:
            yield f"{name_of(obj)}: there is no Kafka {name}, so nobody looks at it"


def _accounts(cluster: Cluster) -> Iterator[str]:
    there = {account["metadata"]["name"] for account in cluster.of("ServiceAccount")}
    for obj in cluster.objects:
        names = {
            subject["name"] for subject in obj.get("subjects", ()) if subject["kind"] == "ServiceAccount"
        }
        for name in sorted((names | set(_values(obj, "serviceAccountName"))) - there):
            yield f"{name_of(obj)}: there is no ServiceAccount {name}"


def _claimed(cluster: Cluster) -> Iterator[str]:
    there = {claim["metadata"]["name"] for claim in cluster.of("PersistentVolumeClaim")}
    for obj in cluster.objects:
        for name in sorted(set(_values(obj, "claimName")) - there):
            yield f"{name_of(obj)}: there is no PersistentVolumeClaim {name}"


def _values(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, list):
        for value in node:
            yield from _values(value, key)
    elif isinstance(node, dict):
        yield from ([node[key]] if key in node else ())
        for value in node.values():
            yield from _values(value, key)


def _probes(cluster: Cluster) -> Iterator[str]:
    for where, container, pod in cluster.containers():
        for kind in PROBES:
            probe = container.get(kind, {})
            for how in ("httpGet", "tcpSocket"):
                if how in probe and probe[how]["port"] not in ports(pod):
                    yield f"{where}: {kind} asks port {probe[how]['port']}, which it does not have"
            image = containers.image_name(container["image"])
            path = probe.get("httpGet", {}).get("path")
            if path is not None and image in IMAGES and path not in paths(image):
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
