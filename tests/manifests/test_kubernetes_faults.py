"""Faults planted in the Kubernetes manifests: each is caught, and named."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import link, policies, selections, wiring
from support.cluster import Cluster
from support.manifests import FOLDER, OVERLAYS, invalid
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


def _own_pods(cluster: Cluster) -> None:
    deployment = cluster.named("Deployment", "delivery")
    assert deployment is not None
    deployment["spec"]["selector"]["matchLabels"] = {"app": "deliveries"}


def _no_kafka(cluster: Cluster) -> None:
    topic = cluster.named("KafkaTopic", "trigger")
    assert topic is not None
    topic["metadata"]["labels"] = {"strimzi.io/cluster": "caravans"}


def _no_account(cluster: Cluster) -> None:
    (listener,) = cluster.of("EventListener")
    listener["spec"]["serviceAccountName"] = "trigger"


def _no_claim(cluster: Cluster) -> None:
    (claim,) = [obj for obj in cluster.of("PersistentVolumeClaim") if obj["metadata"]["name"] == "training"]
    claim["metadata"]["name"] = "trainings"


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (_own_pods, "Deployment/delivery: its selector does not fit its own pods"),
        (_no_kafka, "KafkaTopic/trigger: there is no Kafka caravans, so nobody looks at it"),
        (_no_account, "EventListener/training: there is no ServiceAccount trigger"),
        (_no_claim, "TriggerTemplate/training: there is no PersistentVolumeClaim training"),
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
    ("kind", "name", "path", "value", "message"),
    [
        ("NetworkPolicy", "s3", "ingress.1.from.0.podSelector.matchLabels", {"app": "x"}, "{'app': 'x'}"),
        (
            "NetworkPolicy",
            "s3",
            "ingress.0.from.0.podSelector.matchExpressions.0.values",
            ["feeder", "hubb"],
            "{'app': 'hubb'}",
        ),
        ("NetworkPolicy", "delivery", "podSelector.matchLabels", {"app": "x"}, "{'app': 'x'} fits nothing"),
        ("PodDisruptionBudget", "feeder", "selector.matchLabels", {"app": "x"}, "{'app': 'x'} fits nothing"),
        ("ServiceMonitor", "feeder", "selector.matchLabels", {"app": "x"}, "its selector fits 0 Services"),
        ("ScaledObject", "feeder", "scaleTargetRef.name", "feeders", "there is no feeders to be scaled"),
        ("ScaledObject", "feeder", "triggers.0.authenticationRef.name", "x", "no TriggerAuthentication"),
        ("ScaledObject", "feeder", "triggers.0.metadata.topic", "images", "there is no KafkaTopic images"),
        ("ScaledObject", "feeder", "triggers.0.metadata.consumerGroup", "x", "nobody reads as group x"),
    ],
)
def test_what_selects_nothing_is_named(kind: str, name: str, path: str, value: object, message: str) -> None:
    cluster = changed("full/central")
    obj = cluster.named(kind, name)
    assert obj is not None
    *steps, last = path.split(".")
    node: Any = obj["spec"]
    for step in steps:
        node = node[int(step) if step.isdigit() else step]
    node[last] = value
    found = wiring.faults(cluster)
    assert any(message in fault and f"{kind}/{name}" in fault for fault in found), found


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("app=feeders", "Connector feeder: its selector fits no workload"),
        ("strimzi.io/pod-name=caravan-broker-0", "Connector feeder: its selector fits no broker"),
    ],
)
def test_a_connector_that_leads_nowhere_is_named(selector: str, message: str) -> None:
    central = changed("full/central")
    connector = central.named("Connector", "feeder")
    assert connector is not None
    connector["spec"]["selector"] = selector
    assert message in link.faults(central, rendered("full/edge"))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "components/traces/kustomization.yaml",
            "kind: Deployment|StatefulSet",
            "kind: Deploiment",
            "components/traces, patch traces.yaml: kind Deploiment, labelSelector app in (feeder,delivery,",
        ),
        (
            "components/traces/kustomization.yaml",
            "kind: Deployment|StatefulSet",
            "kind: Deployment|StatefulSte",
            "kind StatefulSte, labelSelector app in (feeder,delivery,hub,shopper,monitor,edge-manager,",
        ),
        ("components/traces/kustomization.yaml", "(feeder,", "(feder,", "labelSelector app=feder selects"),
        ("components/traces/kustomization.yaml", "app in", "ap in", "selects nothing in overlays/full/edge"),
        (
            "components/training-traces/kustomization.yaml",
            "name: training-step",
            "name: training-steps",
            "kind Task, name training-steps selects nothing in overlays/full/central",
        ),
        (
            "components/one-node/kustomization.yaml",
            "kind: KafkaNodePool",
            "kind: NodePool",
            "components/one-node, patch in place: kind NodePool selects nothing in overlays/central",
        ),
        (
            "components/edge-name/kustomization.yaml",
            "select: {kind: KafkaTopic}",
            "select: {kind: Topic}",
            "components/edge-name, replacement: kind Topic selects nothing",
        ),
        (
            "components/site-name/kustomization.yaml",
            "kind: Site",
            "kind: Sites",
            "components/site-name, replacement: kind Sites selects nothing in overlays/edge1",
        ),
        (
            "components/images/kustomization.yaml",
            "name: caravan/feeder,",
            "name: caravan/feeders,",
            "components/images, images: caravan/feeders selects nothing",
        ),
        (
            "tekton/fields.yaml",
            "spec/steps/image",
            "spec/step/image",
            "tekton, fields.yaml: Task spec/step/image selects nothing in overlays/central",
        ),
    ],
)
def test_what_kustomize_passes_over_in_silence_is_named(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("schemas"))
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    overlays = [folder / path.relative_to(FOLDER) for path in OVERLAYS]
    found = selections.faults(folder, overlays)
    assert any(message in fault for fault in found), found


def test_a_component_without_content_is_named(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("schemas"))
    kind = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
    (folder / "components/hardening/kustomization.yaml").write_text(kind)
    overlays = [folder / path.relative_to(FOLDER) for path in OVERLAYS]
    assert "components/hardening: a component without content selects nothing in overlays/edge1" in (
        selections.faults(folder, overlays)
    )


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
    of_kind = changed("central").of(kind)
    obj = next(obj for obj in of_kind if obj["metadata"]["name"] not in {"cli", "training-cleanup"})
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
        "NetworkPolicy: s3 does not let Deployment/cli cli in on 9000",
        "NetworkPolicy: s3 does not let Deployment/hub hub in on 9000",
        "NetworkPolicy: s3 does not let Task/training-release release in on 9000",
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
