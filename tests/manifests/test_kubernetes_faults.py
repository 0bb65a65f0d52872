"""Faults planted in the Kubernetes manifests: each is caught, and named."""

from collections.abc import Callable
from typing import Any

import pytest

from support import link, policies, wiring
from support.cluster import Cluster
from support.manifests import Object, invalid
from support.overlays import changed, rendered


def container(cluster: Cluster, kind: str, name: str) -> Any:
    obj = cluster.named(kind, name)
    assert obj is not None
    return obj["spec"]["template"]["spec"]["containers"][0]


def _wrong_target(cluster: Cluster) -> None:
    service = cluster.named("Service", "feeder")
    assert service is not None
    service["spec"]["ports"][0]["targetPort"] = 8080


def _wrong_selector(cluster: Cluster) -> None:
    service = cluster.named("Service", "hub")
    assert service is not None
    service["spec"]["selector"] = {"app": "hubb"}


def _missing_variable(cluster: Cluster) -> None:
    env = container(cluster, "Deployment", "feeder")["env"]
    env[:] = [entry for entry in env if entry["name"] != "S3_CENTRAL_ACCESS_KEY"]


def _unknown_variable(cluster: Cluster) -> None:
    container(cluster, "Deployment", "delivery")["env"].append({"name": "COALESCE_SECOND", "value": "1"})


def _bad_value(cluster: Cluster) -> None:
    container(cluster, "Deployment", "delivery")["env"].append({"name": "COALESCE_SECONDS", "value": "soon"})


def _wrong_probe(cluster: Cluster) -> None:
    container(cluster, "Deployment", "hub")["livenessProbe"]["httpGet"]["path"] = "/health"


def _wrong_port(cluster: Cluster) -> None:
    container(cluster, "Deployment", "hub")["ports"][0]["containerPort"] = 8086


def _wrong_image(cluster: Cluster) -> None:
    container(cluster, "Deployment", "hub")["image"] = "caravan/hub:0.1.0"


def _wrong_address(cluster: Cluster) -> None:
    for entry in container(cluster, "Deployment", "delivery")["env"]:
        if entry["name"] == "EVENTLISTENER_URL":
            entry["value"] = "http://el-caravan:8080/"


def _missing_parameter(cluster: Cluster) -> None:
    pipeline = cluster.named("Pipeline", "training")
    assert pipeline is not None
    del pipeline["spec"]["tasks"][0]["params"][0]


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (_wrong_target, "Service/feeder: targetPort 8080 is no port of its pods"),
        (_wrong_selector, "Service/hub: its selector fits 0 workloads, not one"),
        (_missing_variable, "Deployment/feeder feeder: S3_CENTRAL_ACCESS_KEY is not set"),
        (_unknown_variable, "Deployment/delivery delivery: COALESCE_SECOND is no setting of delivery"),
        (_bad_value, "Deployment/delivery delivery: COALESCE_SECONDS: Input should be a valid number"),
        (_wrong_probe, "Deployment/hub hub: livenessProbe asks /health, which monitor does not answer"),
        (_wrong_port, "Deployment/hub hub: the image does not listen on 8086"),
        (_wrong_image, "Deployment/hub hub: caravan/hub:0.1.0 is not built here"),
        (_wrong_address, "EVENTLISTENER_URL names el-caravan, which nothing here offers"),
        (_missing_parameter, "Pipeline/training judge: gives ['edge', 'run', 'traceparent'], and"),
    ],
)
def test_a_planted_fault_is_named(plant: Callable[[Cluster], None], message: str) -> None:
    cluster = changed("central")
    plant(cluster)
    assert any(message in fault for fault in wiring.faults(cluster)), wiring.faults(cluster)


@pytest.mark.parametrize(
    ("kind", "path", "value", "message"),
    [
        ("Deployment", "spec.replicsa", 2, "replicsa"),
        (
            "Deployment",
            "spec.template.spec.containers.0.ports.0.containerPort",
            "http",
            "'http' is not of type",
        ),
        ("Kafka", "spec.kafka.listeners.0.tsl", True, "tsl"),
        ("KafkaNodePool", "spec.roles", ["brokr"], "'brokr' is not one of"),
        ("KafkaUser", "spec.authorization.acls.0.operation", "Read", "operation"),
        ("Pipeline", "spec.tasks.0.runsAfter", ["x"], "runsAfter"),
        ("Task", "spec.steps.0.resources", {}, "resources"),
        ("Task", "spec.steps.0.envFrom.0.configMap", {}, "configMap"),
        ("EventListener", "spec.triggers.0.binding", [], "binding"),
        ("TriggerTemplate", "spec.resourcetemplates.0.spec.workspace", [], "workspace"),
        ("Connector", "spec.host", "s3", "valid under each of"),
        ("AccessGrant", "spec.redemptions", 1, "redemptions"),
    ],
)
def test_a_planted_field_is_named(kind: str, path: str, value: object, message: str) -> None:
    obj: Object = next(obj for obj in changed("central").of(kind) if "cleanup" not in obj["metadata"]["name"])
    *steps, last = path.split(".")
    node: Any = obj
    for step in steps:
        node = node[int(step) if step.isdigit() else step]
    assert invalid(obj) == []
    node[last] = value
    assert any(message in fault for fault in invalid(obj)), invalid(obj)


@pytest.mark.parametrize(
    ("api_version", "kind"),
    [("apps/v1", "Deployement"), ("kafka.strimzi.io/v1beta2", "Kafka"), ("skupper.io/v2alpha1", "Link2")],
)
def test_an_unknown_kind_is_a_fault_and_no_warning(api_version: str, kind: str) -> None:
    obj = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": {}}
    assert invalid(obj) == [f"{kind}/x: there is no kind {kind} in {api_version} that is known here"]


def test_a_routing_key_with_one_end_is_named() -> None:
    central, edge = changed("central"), changed("edge1")
    for connector in central.of("Connector"):
        if connector["spec"]["routingKey"] == "feeder":
            connector["spec"]["routingKey"] = "feeders"
    assert link.faults(central, edge) == [
        "Connector feeders: no edge listens for it",
        "Listener feeder: central has no connector for it",
    ]


def test_a_door_that_a_network_policy_forgets_is_named() -> None:
    cluster = changed("full/central")
    policy = cluster.named("NetworkPolicy", "s3")
    assert policy is not None
    policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchExpressions"][0]["values"] = ["feeder"]
    del policy["spec"]["ingress"][1]
    assert list(policies.faults(cluster)) == [
        "NetworkPolicy: s3 does not let Deployment/hub hub in on 9000",
        "NetworkPolicy: s3 does not let Task/training-rollback rollback in on 9000",
        "NetworkPolicy: s3 does not let Task/training-step step in on 9000",
        "NetworkPolicy: s3 does not let the link in on 9000",
    ]


def test_a_name_that_no_certificate_has_is_named() -> None:
    central = changed("central")
    (kafka,) = central.of("Kafka")
    del kafka["spec"]["kafka"]["listeners"][1]["configuration"]["bootstrap"]
    assert link.faults(central, rendered("edge1")) == [
        "KAFKA_BOOTSTRAP_SERVERS: no certificate at central has the name kafka"
    ]


def test_a_broker_that_no_edge_reaches_is_named() -> None:
    edge = changed("edge1")
    edge.objects = [obj for obj in edge.objects if obj["metadata"]["name"] != "kafka-2"]
    found = link.faults(rendered("full/central"), edge)
    assert "kafka-2: an edge cannot reach this broker" in found
