"""The Kubernetes manifests, rendered: each object is valid, and what one names another has."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml
from opentelemetry.sdk.trace import TracerProvider
from typer.core import TyperGroup

from caravan import contracts, tracing
from delivery.listener import EventListener
from support import link, policies, selections, wiring
from support.manifests import FOLDER, OVERLAYS, invalid
from support.overlays import EVERY, folders, rendered


@EVERY
def test_every_object_is_valid_by_its_kinds_own_schema(overlay: str) -> None:
    assert [fault for obj in rendered(overlay).objects for fault in invalid(obj)] == []


@EVERY
def test_what_one_object_names_another_has(overlay: str) -> None:
    assert wiring.faults(rendered(overlay)) == []


@EVERY
def test_network_policies_let_in_who_is_told_to_come(overlay: str) -> None:
    assert list(policies.faults(rendered(overlay))) == []


@EVERY
def test_everything_is_in_the_overlays_namespace(overlay: str) -> None:
    whole = {"ClusterRoleBinding", "Namespace"}
    objects = [obj for obj in rendered(overlay).objects if obj["kind"] not in whole]
    assert len({obj["metadata"]["namespace"] for obj in objects}) == 1


@pytest.mark.parametrize("edge", ["edge1", "edge2", "full/edge", "scaled/edge"])
@pytest.mark.parametrize("central", ["central", "full/central", "scaled/central"])
def test_every_routing_key_of_the_link_has_both_ends(central: str, edge: str) -> None:
    assert link.faults(rendered(central), rendered(edge)) == []


def test_every_patch_replacement_and_image_selects_something_in_every_overlay() -> None:
    assert selections.faults(FOLDER, OVERLAYS) == []


def test_every_component_is_in_an_overlay() -> None:
    components = {path.parent for path in (FOLDER / "components").rglob("kustomization.yaml")}
    assert components - set().union(*map(folders, OVERLAYS)) == set()


@pytest.mark.parametrize("side", ["central", "edge"])
def test_every_manifest_of_a_side_is_applied(side: str) -> None:
    there = {path.name for path in (FOLDER / side).glob("*.yaml")} - {"kustomization.yaml"}
    assert (
        there - set(yaml.safe_load((FOLDER / side / "kustomization.yaml").read_text())["resources"]) == set()
    )


@pytest.mark.parametrize("edge", ["edge1", "edge2"])
def test_an_edge_is_called_the_same_everywhere(edge: str) -> None:
    cluster = rendered(edge)
    (site,) = cluster.of("Site")
    told = {config["data"]["EDGE"] for config in cluster.of("ConfigMap") if "EDGE" in config["data"]}
    assert told == {site["metadata"]["name"]} == {edge}


def test_an_overlay_of_an_edge_is_ten_lines_at_most() -> None:
    for overlay in ("edge1", "edge2"):
        assert len((FOLDER / "overlays" / overlay / "kustomization.yaml").read_text().splitlines()) <= 10


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
    sent: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(202, json={"eventID": "1"})

    tracing.use(TracerProvider(shutdown_on_exit=False))
    try:
        async with httpx.AsyncClient(transport=httpx.MockTransport(take)) as client:
            with tracing.span("trigger-pipeline"):
                trace = tracing.headers()["traceparent"]
                await EventListener(client, "http://el-training:8080/").start_run("edge2")
    finally:
        tracing.stop()
    (request,) = sent
    body = json.loads(request.content)

    binding = cluster.named("TriggerBinding", "training")
    template = cluster.named("TriggerTemplate", "training")
    listener = cluster.named("EventListener", "training")
    assert binding is not None
    assert template is not None
    assert listener is not None
    (interceptor,) = listener["spec"]["triggers"][0]["interceptors"]
    ((overlay,),) = [param["value"] for param in interceptor["params"] if param["name"] == "overlays"]
    header = re.fullmatch(r"header\.canonical\('(.+)'\)", overlay["expression"])
    assert header is not None
    event = {f"$(body.{name})": value for name, value in body.items()}
    event[f"$(extensions.{overlay['key']})"] = request.headers[header[1]]
    values = {param["name"]: event[param["value"]] for param in binding["spec"]["params"]}
    assert values.keys() == {param["name"] for param in template["spec"]["params"]}
    (run,) = template["spec"]["resourcetemplates"]
    text = json.dumps(run)
    for name, value in values.items():
        text = text.replace(f"$(tt.params.{name})", value)
    assert "$(tt." not in text
    made = json.loads(text)
    assert made["metadata"]["generateName"] == "training-edge2-"
    assert made["spec"]["params"] == [
        {"name": "edge", "value": "edge2"},
        {"name": "traceparent", "value": trace},
    ]
    pipeline = cluster.named("Pipeline", made["spec"]["pipelineRef"]["name"])
    assert pipeline is not None
    assert {param["name"] for param in pipeline["spec"]["params"]} == {"edge", "traceparent"}
    ((claim,),) = [[w["persistentVolumeClaim"]["claimName"]] for w in made["spec"]["workspaces"]]
    assert cluster.named("PersistentVolumeClaim", claim) is not None
    (rule,) = re.findall(r"body\['id-edge'\].matches\('(.+?)'\)", json.dumps(listener))
    for edge in ("edge1", "a", "x" * 63, "Edge", "-a", "a" * 64, "a b"):
        assert (re.fullmatch(rule, edge) is not None) == contracts.is_edge_id(edge)


def test_the_pipeline_runs_the_steps_of_the_training_in_their_order_with_options_that_they_have() -> None:
    from training.commands import commands  # noqa: PLC0415 - what it imports is large

    group = typer.main.get_command(commands)
    assert isinstance(group, TyperGroup)
    cluster = rendered("central")
    pipeline = cluster.named("Pipeline", "training")
    task = cluster.named("Task", "training-step")
    back, end = (cluster.named("Task", f"training-{name}") for name in ("rollback", "release"))
    assert pipeline is not None
    assert task is not None
    assert back is not None
    assert end is not None
    steps = [use["name"] for use in pipeline["spec"]["tasks"]]
    assert steps == ["judge", "acquire", "train", "evaluate", "publish"]
    assert [use.get("runAfter") for use in pipeline["spec"]["tasks"]] == [None, *([s] for s in steps[:-1])]
    for use in pipeline["spec"]["tasks"]:
        given = {param["name"]: param["value"] for param in use["params"]}
        assert given["step"] == use["name"]
        # All steps of a run share one directory of the workspace.
        words = _parsed(task["spec"]["steps"][0], given | {"edge": "edge1", "run": "run-1"})
        context = group.commands[words[0]].make_context(words[0], words[1:])
        assert context.params["edge"] == "edge1"
        assert str(context.params["work"]) == "/data/work/run-1"
    words = _parsed(back["spec"]["steps"][0], {"edge": "edge1", "to": "1"})
    context = group.commands[words[0]].make_context(words[0], words[1:])
    assert (context.params["edge"], context.params["to"]) == ("edge1", 1)
    words = _parsed(end["spec"]["steps"][0], {"edge": "edge1"})
    assert group.commands[words[0]].make_context(words[0], words[1:]).params["edge"] == "edge1"


def _parsed(step: Any, params: dict[str, str]) -> list[str]:
    assert step["command"] == ["python", "-m", "training"]
    return [re.sub(r"\$\(params\.(\w+)\)", lambda found: params[found[1]], word) for word in step["args"]]


def test_the_schemas_say_where_they_come_from() -> None:
    readme = (FOLDER / "schemas" / "README.md").read_text()
    groups = {path.name for path in Path(FOLDER / "schemas").iterdir() if path.is_dir()}
    assert groups
    assert {group for group in groups if f"`{group}`" not in readme} == set()
