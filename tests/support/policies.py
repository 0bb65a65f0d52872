"""NetworkPolicies, judged: they are about pods that there are, and let in who is told to come."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from support.cluster import Cluster, addresses, environment, labels_of_runs, ports, selected
from support.manifests import Object, name_of

OUTSIDE = "outside"
MONITORING = "monitoring"
ROUTER = {"application": "skupper-router"}
"""A label of the pods that Skupper makes, through which an edge comes."""


@dataclass(frozen=True)
class Visit:
    """Somebody who comes to a pod's port: from the same namespace, or from another one."""

    who: str
    labels: Mapping[str, str]
    pod: Object
    port: int
    namespace: str = ""


def faults(cluster: Cluster) -> Iterator[str]:
    """Say what is wrong with a rendered overlay's policies."""
    policies = cluster.of("NetworkPolicy")
    for policy in policies:
        pods = selected(cluster, policy["spec"]["podSelector"]["matchLabels"])
        if not pods:
            yield f"{name_of(policy)}: fits no workload"
        named = {
            port["port"]
            for rule in policy["spec"].get("ingress", ())
            for port in rule.get("ports", ())
            if isinstance(port["port"], str)
        }
        for port in sorted(named):
            yield from (
                f"{name_of(policy)}: {port} is no port of its pods" for pod in pods if port not in ports(pod)
            )
    for visit in (*_services(cluster), *_edges(cluster), *_monitors(cluster), *_routes(cluster)):
        about = [policy for policy in policies if _is_about(policy, visit.pod)]
        if about and not any(_admits(policy, visit) for policy in about):
            app = visit.pod["metadata"]["labels"]["app"]
            yield f"NetworkPolicy: {app} does not let {visit.who} in on {visit.port}"


def _services(cluster: Cluster) -> Iterator[Visit]:
    """Yield what the containers are told to reach."""
    for where, container, pod in cluster.containers():
        labels = pod["metadata"].get("labels") or next(iter(labels_of_runs(cluster)), {})
        env, _ = environment(cluster, container)
        for _, host, port in addresses(env):
            service = cluster.named("Service", host)
            if service is not None:
                yield from _through(cluster, service, port, where, labels)


def _edges(cluster: Cluster) -> Iterator[Visit]:
    for connector in cluster.of("Connector"):
        selector = dict(pair.split("=") for pair in connector["spec"]["selector"].split(","))
        for pod in selected(cluster, selector):
            yield Visit("the link", ROUTER, pod, connector["spec"]["port"])


def _monitors(cluster: Cluster) -> Iterator[Visit]:
    for monitor in cluster.of("ServiceMonitor"):
        for service in cluster.of("Service"):
            if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items():
                asked = {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]}
                for port in service["spec"]["ports"]:
                    if port["name"] in asked:
                        yield from _through(
                            cluster, service, port["port"], "Prometheus", {}, namespace=MONITORING
                        )


def _routes(cluster: Cluster) -> Iterator[Visit]:
    for route in cluster.of("Route"):
        service = cluster.named("Service", route["spec"]["to"]["name"])
        for port in service["spec"]["ports"] if service else ():
            if port["name"] == route["spec"]["port"]["targetPort"]:
                yield from _through(cluster, service, port["port"], name_of(route), {}, namespace=OUTSIDE)


def _through(
    cluster: Cluster,
    service: Any,
    number: int,
    who: str,
    labels: Mapping[str, str],
    *,
    namespace: str = "",
) -> Iterator[Visit]:
    for port in service["spec"]["ports"]:
        for pod in selected(cluster, service["spec"]["selector"]):
            if port["port"] == number:
                yield Visit(who, labels, pod, ports(pod)[port["targetPort"]], namespace)


def _is_about(policy: Object, pod: Object) -> bool:
    wanted = policy["spec"]["podSelector"]["matchLabels"]
    return bool(wanted.items() <= pod["metadata"].get("labels", {}).items())


def _admits(policy: Object, visit: Visit) -> bool:
    return any(
        any(_fits(peer, visit) for peer in rule.get("from", [{}]))
        and any(ports(visit.pod).get(port["port"]) == visit.port for port in rule.get("ports", ()))
        for rule in policy["spec"].get("ingress", ())
    )


def _fits(peer: Mapping[str, Any], visit: Visit) -> bool:
    if not peer:
        return True
    if "namespaceSelector" in peer:
        wanted = peer["namespaceSelector"]["matchLabels"]
        return bool(wanted == {"kubernetes.io/metadata.name": visit.namespace})
    selector = peer["podSelector"]
    return (
        not visit.namespace
        and selector.get("matchLabels", {}).items() <= visit.labels.items()
        and all(
            visit.labels.get(expression["key"]) in expression["values"]
            for expression in selector.get("matchExpressions", ())
        )
    )
