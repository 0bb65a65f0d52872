"""Kubernetes manifests as data: rendered by Kustomize, and each object judged by its kind's own schema."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from support.dockerfiles import ROOT

FOLDER = ROOT / "infra" / "kubernetes"
OVERLAYS = sorted(
    path.parent
    for path in (FOLDER / "overlays").rglob("kustomization.yaml")
    if "edges" not in path.parts  # a part of the overlay above it
)
KUBERNETES = kubernetes_validate.latest_version()

Object = dict[str, Any]


def kustomize() -> list[str] | None:
    """Return the command that renders a folder, if this machine has one."""
    beside = Path(sys.executable).with_name("kubectl")
    for command in ([str(beside), "kustomize"], ["kustomize", "build"], ["kubectl", "kustomize"]):
        if shutil.which(command[0]):
            return command
    return None


def render(command: list[str], folder: Path) -> list[Object]:
    """Return the objects of an overlay.

    Raises:
        AssertionError: with Kustomize's own words, if it refuses.

    """
    done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def name_of(obj: Object) -> str:
    """Return what messages call an object: `Deployment/feeder`."""
    metadata = obj.get("metadata", {})
    return f"{obj.get('kind')}/{metadata.get('name') or metadata.get('generateName')}"


def invalid(obj: Object) -> list[str]:
    """Judge an object by the schema of its kind; one without a schema is a fault."""
    return _invalid(json.dumps(obj))


@cache  # many an object is in several overlays
def _invalid(text: str) -> list[str]:
    obj = json.loads(text)
    group, _, version = obj["apiVersion"].rpartition("/")
    schema = _custom(group, version, obj["kind"])
    if schema is not None:
        found = [_message(fault) for fault in jsonschema.Draft202012Validator(schema).iter_errors(obj)]
        found += [fault for part in _within(obj) for fault in invalid(part)]
    else:
        found = list(_kubernetes(obj))
    return [f"{name_of(obj)}: {fault}" for fault in found]


@cache
def _custom(group: str, version: str, kind: str) -> Any:
    path = FOLDER / "schemas" / f"{group}_{version}" / f"{kind}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _kubernetes(obj: Object) -> Iterator[str]:
    try:
        kubernetes_validate.validate(obj, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        yield f"there is no kind {obj['kind']} in {obj['apiVersion']} that is known here"
    except kubernetes_validate.ValidationError as exc:
        yield _message(exc)


def _message(fault: Any) -> str:
    while fault.context:
        # Of several forms that were possible, the one that came furthest.
        fault = max(fault.context, key=lambda inner: len(inner.absolute_path))
    place = ".".join(str(part) for part in fault.absolute_path)
    return f"{place or 'the object'}: {fault.message}"


def _within(obj: Object) -> Iterator[Object]:
    """Yield what a custom resource has inside that is a kind of its own, or a pod in all but name."""
    spec = obj.get("spec", {})
    yield from spec.get("resourcetemplates", ())
    if obj["kind"] == "Task":
        yield pod_of(obj)


def pod_of(task: Object) -> Object:
    """Return the pod that a Tekton Task comes to, as far as Kubernetes knows its fields."""
    own = {"computeResources", "script", "onError", "timeout", "workspaces", "stdoutConfig", "stderrConfig"}
    containers = [
        {key: value for key, value in step.items() if key not in own}
        | ({"resources": step["computeResources"]} if "computeResources" in step else {})
        for step in task["spec"]["steps"]
    ]
    spec = {"containers": containers, "volumes": task["spec"].get("volumes", [])}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": task["metadata"], "spec": spec}
