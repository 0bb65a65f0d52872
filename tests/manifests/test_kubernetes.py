"""The Kubernetes manifests, rendered: each object is valid, and what one names another has."""

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest

from caravan import contracts
from delivery.listener import EventListener
from support.dockerfiles import ROOT
from support.manifests import FOLDER, OVERLAYS, Object, invalid, kustomize, render
from support.wiring import Cluster, link_faults, secrets

NAMES = [str(path.relative_to(FOLDER / "overlays")) for path in OVERLAYS]
EVERY = pytest.mark.parametrize("overlay", NAMES)


@cache
def rendered(overlay: str) -> Cluster:
    command = kustomize()
    if command is None:
        pytest.skip("no kustomize and no kubectl for this machine")
    return Cluster(render(command, FOLDER / "overlays" / overlay))


def changed(overlay: str) -> Cluster:
    """Return a copy, to plant a fault in."""
    return copy.deepcopy(rendered(overlay))


@EVERY
def test_every_object_is_valid_by_its_kinds_own_schema(overlay: str) -> None:
    assert [fault for obj in rendered(overlay).objects for fault in invalid(obj)] == []


@EVERY
def test_what_one_object_names_another_has(overlay: str) -> None:
    assert rendered(overlay).faults() == []


@EVERY
def test_everything_is_in_the_overlays_namespace(overlay: str) -> None:
    whole = {"ClusterRoleBinding", "Namespace"}
    objects = [obj for obj in rendered(overlay).objects if obj["kind"] not in whole]
    assert len({obj["metadata"]["namespace"] for obj in objects}) == 1


@pytest.mark.parametrize("edge", ["edge1", "edge2", "full/edge", "scaled/edge"])
@pytest.mark.parametrize("central", ["central", "full/central", "scaled/central"])
def test_every_routing_key_of_the_link_has_both_ends(central: str, edge: str) -> None:
    assert link_faults(rendered(central), rendered(edge)) == []


def test_every_component_is_in_an_overlay() -> None:
    used = {
        (folder / line.split("- ")[1] if "- " in line else folder).resolve()
        for folder in (path.parent for path in (FOLDER / "overlays").rglob("kustomization.yaml"))
        for line in re.findall(r"\S*- \.\./\S+", (folder / "kustomization.yaml").read_text())
    } | {
        (folder / name).resolve()
        for folder in (path.parent for path in (FOLDER / "overlays").rglob("kustomization.yaml"))
        for names in re.findall(r"components: \[([^]]+)\]", (folder / "kustomization.yaml").read_text())
        for name in names.split(", ")
    }
    assert {path.parent.resolve() for path in (FOLDER / "components").rglob("kustomization.yaml")} <= used


def test_an_overlay_of_an_edge_is_ten_lines_at_most() -> None:
    for overlay in ("edge1", "edge2"):
        assert len((FOLDER / "overlays" / overlay / "kustomization.yaml").read_text().splitlines()) <= 10


@pytest.mark.parametrize("overlay", ["central", "full/central"])
def test_the_topics_are_those_of_the_contracts(overlay: str) -> None:
    cluster = rendered(overlay)
    users = {user["metadata"]["name"] for user in cluster.of("KafkaUser")}
    edges = [edge for edge in ("edge1", "edge2") if edge in users]
    expected = {contracts.EDGE_METRICS, contracts.EDGE_STATUS}
    for topic in (contracts.TRIGGER, contracts.TRAINING_IMAGES):
        expected |= {topic, contracts.dead_letter(topic)}
    for edge in edges:
        expected.add(contracts.detections_topic(edge))
        for topic in (contracts.events_topic(edge), contracts.images_topic(edge)):
            expected |= {topic, contracts.dead_letter(topic)}
    assert edges
    assert {topic["metadata"]["name"] for topic in cluster.of("KafkaTopic")} == expected


@pytest.mark.parametrize("overlay", ["central", "full/central"])
def test_users_are_allowed_topics_that_there_are_and_each_topic_is_somebodys(overlay: str) -> None:
    cluster = rendered(overlay)
    topics = {topic["metadata"]["name"] for topic in cluster.of("KafkaTopic")}
    reached: set[str] = set()
    for user in cluster.of("KafkaUser"):
        for acl in user["spec"]["authorization"]["acls"]:
            resource = acl["resource"]
            if resource["type"] == "topic":
                prefix = resource.get("patternType") == "prefix"
                name = resource["name"]
                fits = {topic for topic in topics if (topic.startswith(name) if prefix else topic == name)}
                assert fits, f"{user['metadata']['name']} is allowed {name}, which is no topic"
                reached |= fits
    assert reached == topics


def test_an_edges_groups_are_those_that_its_services_use() -> None:
    from monitor.settings import MonitorSettings  # noqa: PLC0415 - read with this environment
    from shopper.settings import ShopperSettings  # noqa: PLC0415

    (user,) = [user for user in rendered("central").of("KafkaUser") if user["metadata"]["name"] == "edge2"]
    groups = {
        acl["resource"]["name"]
        for acl in user["spec"]["authorization"]["acls"]
        if acl["resource"]["type"] == "group"
    }
    assert groups == {MonitorSettings(edge="edge2").group, ShopperSettings(edge="edge2").group}


def test_the_model_server_reads_the_bucket_that_the_edge_manager_writes() -> None:
    deployment = rendered("edge1").named("Deployment", "model-server")
    assert deployment is not None
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    place = f"s3://{contracts.PRODUCTION}/{contracts.MODELS_CONFIG}"
    assert f"--model_config_file={place}" in container["args"]
    env = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert env["MODEL_BASE_PATH"] == f"s3://{contracts.PRODUCTION}/{contracts.MODELS.rstrip('/')}"
    assert env["MODEL_NAME"] == contracts.DEFAULT_MODEL


async def test_the_event_listener_makes_a_run_of_what_delivery_sends() -> None:
    cluster = rendered("central")
    sent: list[dict[str, Any]] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(202, json={"eventID": "1"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(take)) as client:
        await EventListener(client, "http://el-training:8080/").start_run("edge2")
    (body,) = sent

    binding = cluster.named("TriggerBinding", "training")
    template = cluster.named("TriggerTemplate", "training")
    listener = cluster.named("EventListener", "training")
    assert binding is not None
    assert template is not None
    assert listener is not None
    values = {
        param["name"]: body[param["value"].removeprefix("$(body.").removesuffix(")")]
        for param in binding["spec"]["params"]
    }
    assert values.keys() == {param["name"] for param in template["spec"]["params"]}
    (run,) = template["spec"]["resourcetemplates"]
    text = json.dumps(run)
    for name, value in values.items():
        text = text.replace(f"$(tt.params.{name})", value)
    assert "$(tt." not in text
    made = json.loads(text)
    assert made["metadata"]["generateName"] == "training-edge2-"
    assert made["spec"]["params"] == [{"name": "edge", "value": "edge2"}]
    pipeline = cluster.named("Pipeline", made["spec"]["pipelineRef"]["name"])
    assert pipeline is not None
    assert {param["name"] for param in pipeline["spec"]["params"]} == {"edge"}
    ((claim,),) = [[w["persistentVolumeClaim"]["claimName"]] for w in made["spec"]["workspaces"]]
    assert cluster.named("PersistentVolumeClaim", claim) is not None
    (rule,) = re.findall(r"body\['id-edge'\].matches\('(.+)'\)", json.dumps(listener))
    for edge in ("edge1", "a", "x" * 63, "Edge", "-a", "a" * 64, "a b"):
        assert (re.fullmatch(rule, edge) is not None) == contracts.is_edge_id(edge)


def test_the_pipelines_steps_are_commands_of_the_training_in_their_order() -> None:
    from training.__main__ import commands  # noqa: PLC0415 - what it imports is large

    known = {
        command.name or getattr(command.callback, "__name__", "") for command in commands.registered_commands
    }
    pipeline = rendered("central").named("Pipeline", "training")
    assert pipeline is not None
    steps = [task["name"] for task in pipeline["spec"]["tasks"]]
    assert steps == ["judge", "acquire", "train", "evaluate", "publish"]
    assert set(steps) <= known
    assert [task.get("runAfter") for task in pipeline["spec"]["tasks"]] == [None, *([s] for s in steps[:-1])]


def test_the_secrets_that_somebody_has_to_make_are_in_the_walk_through() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    needed = set().union(*(secrets(rendered(overlay)) for overlay in NAMES))
    assert {name for name in needed if not re.search(rf"secret generic {name}\b", text)} == set()


def test_the_walk_through_names_files_and_components_that_are_there() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text()
    paths = re.findall(r"infra/kubernetes/[\w./-]*[\w-]", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists() and "edge3" not in path] == []


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    board = json.loads((FOLDER / "components/service-monitors/central/caravan.json").read_text())
    sources = "".join(
        path.read_text() for folder in ("services", "infra") for path in (ROOT / folder).glob("*/*/**/*.py")
    )
    for panel in board["panels"]:
        for target in panel["targets"]:
            metrics = re.findall(r"\b((?:caravan|shopper|monitor)_\w+)", target["expr"])
            assert metrics
            for metric in metrics:
                assert f'"{re.sub("_bucket$", "", metric)}"' in sources, f"{panel['title']}: {metric}"


# --- planted faults: each is caught, and named ---------------------------------------------------


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
        (_missing_parameter, "Pipeline/training judge: gives ['edge', 'run'], and the Task takes"),
    ],
)
def test_a_planted_fault_is_named(plant: Callable[[Cluster], None], message: str) -> None:
    cluster = changed("central")
    plant(cluster)
    assert any(message in fault for fault in cluster.faults()), cluster.faults()


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
    assert link_faults(central, edge) == [
        "Connector feeders: no edge listens for it",
        "Listener feeder: central has no connector for it",
    ]


def test_a_broker_that_no_edge_reaches_is_named() -> None:
    edge = changed("edge1")
    edge.objects = [obj for obj in edge.objects if obj["metadata"]["name"] != "kafka-2"]
    found = link_faults(rendered("full/central"), edge)
    assert "kafka-2: an edge cannot reach this broker" in found


def test_the_schemas_say_where_they_come_from() -> None:
    readme = (FOLDER / "schemas" / "README.md").read_text()
    groups = {path.name for path in Path(FOLDER / "schemas").iterdir() if path.is_dir()}
    assert groups
    assert {group for group in groups if f"`{group}`" not in readme} == set()
