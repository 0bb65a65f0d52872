"""What Kustomize passes over in silence: patches, replacements and images whose target is not there.

Judged from the folders as they are written. A target has to select something in every overlay that it is in;
each of its alternatives (`Deployment|StatefulSet`, `app in (feeder,hub)`) in one of them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from support.manifests import Object

Target = Mapping[str, str]

_TERM = re.compile(
    r"(?P<key>[\w./-]+)(?:\s*(?P<how>==?|!=|\s(?:not)?in\s)\s*(?P<values>\([^)]*\)|[\w./-]+))?"
)
_WORDS = re.compile(r"[\w-]+(\|[\w-]+)+")


@dataclass(frozen=True)
class Use:
    """What one place of a kustomization selects, where it is used.

    Attributes:
        where: the kustomization's folder, and what in it.
        what: the target, or one alternative of it.
        selects: whether there is any object that it selects.
        whole: whether it is all of the target.

    """

    where: str
    what: str
    selects: bool
    whole: bool = True


def faults(root: Path, overlays: Iterable[Path]) -> list[str]:
    """Say what selects nothing in one of the overlays, and which alternative selects nothing in any."""
    found: dict[str, None] = {}
    alternatives: dict[tuple[str, str], bool] = {}
    for overlay in overlays:
        for use in _uses(root, overlay):
            if not use.whole:
                key = (use.where, use.what)
                alternatives[key] = alternatives.get(key, False) or use.selects
            elif not use.selects:
                found[f"{use.where}: {use.what} selects nothing in {overlay.relative_to(root)}"] = None
    unused = [f"{where}: {what} selects nothing" for (where, what), used in alternatives.items() if not used]
    return [*found, *unused]


def _uses(root: Path, folder: Path) -> Iterator[Use]:
    """Yield the uses in a kustomization, its components, and the kustomizations that it is made of."""
    scope = list(_objects(folder))
    for each in (folder, *_components(folder)):
        yield from _uses_of(str(each.relative_to(root)), _kustomization(each), each, scope)
    for part in _parts(folder):
        yield from _uses(root, part)


def _uses_of(where: str, whole: Mapping[str, Any], folder: Path, scope: list[Object]) -> Iterator[Use]:
    for patch in (*whole.get("patches", ()), *whole.get("patchesJson6902", ())):
        if "target" in patch:
            yield from _target(f"{where}, patch {patch.get('path', 'in place')}", patch["target"], scope)
    for replacement in whole.get("replacements", ()):
        for target in replacement["targets"]:
            for selector in (target["select"], *target.get("reject", ())):
                yield from _target(f"{where}, replacement", selector, scope)
    names = {re.split(r"[:@]", text)[0] for obj in scope for text in _texts(obj, "image")}
    for image in whole.get("images", ()):
        is_whole = whole.get("kind") != "Component"  # which both sides use, each for its own
        yield Use(f"{where}, images", image["name"], selects=image["name"] in names, whole=is_whole)
    for path in whole.get("configurations", ()):
        for spec in _field_specs(yaml.safe_load((folder / path).read_text())):
            there = any(obj["kind"] == spec["kind"] and _has(obj, spec["path"].split("/")) for obj in scope)
            yield Use(f"{where}, {path}", f"{spec['kind']} {spec['path']}", selects=there)
    if whole.get("kind") == "Component" and not whole.keys() - {"apiVersion", "kind"}:
        yield Use(where, "a component without content", selects=False)


def _target(where: str, target: Target, scope: list[Object]) -> Iterator[Use]:
    yield Use(where, _shown(target), selects=any(_fits(target, obj) for obj in scope))
    for narrower in _alternatives(target):
        selects = any(_fits(narrower, obj) for obj in scope)
        yield Use(where, _shown(narrower), selects=selects, whole=False)


def _shown(target: Target) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(target.items()))


def _alternatives(target: Target) -> Iterator[Target]:
    for name, value in target.items():
        if name != "labelSelector" and _WORDS.fullmatch(value):
            yield from ({**target, name: word} for word in value.split("|"))
        for term in _TERM.finditer(value if name == "labelSelector" else ""):
            values = _values(term)
            if len(values) > 1 and "not" not in term["how"]:
                yield from ({**target, name: f"{term['key']}={each}"} for each in values)


def _fits(target: Target, obj: Object) -> bool:
    group, _, version = obj["apiVersion"].rpartition("/")
    metadata = obj.get("metadata", {})
    plain = {"group": group, "version": version, "kind": obj["kind"], "name": metadata.get("name", "")}
    plain["namespace"] = metadata.get("namespace", "")
    return all(re.fullmatch(target[name], value) for name, value in plain.items() if name in target) and all(
        fits_labels(target[name], metadata.get(labels) or {})
        for name, labels in (("labelSelector", "labels"), ("annotationSelector", "annotations"))
        if name in target
    )


def fits_labels(selector: str, labels: Mapping[str, str]) -> bool:
    """Tell whether labels fit a selector in Kubernetes' own words: `app in (a,b),tier!=x`."""
    return all(_fits_term(term, labels) for term in _TERM.finditer(selector))


def _fits_term(term: re.Match[str], labels: Mapping[str, str]) -> bool:
    how, value = (term["how"] or "").strip(), labels.get(term["key"])
    if not how:
        return value is not None
    return (value in _values(term)) != (how in ("!=", "notin"))


def _values(term: re.Match[str]) -> list[str]:
    return re.findall(r"[\w./-]+", term["values"] or "")


# --- what a kustomization is made of ------------------------------------------------------------


@cache
def _kustomization(folder: Path) -> Mapping[str, Any]:
    whole: Mapping[str, Any] = yaml.safe_load((folder / "kustomization.yaml").read_text())
    return whole


def _components(folder: Path) -> Iterator[Path]:
    for name in _kustomization(folder).get("components", ()):
        component = (folder / name).resolve()
        yield component
        yield from _components(component)


def _parts(folder: Path) -> Iterator[Path]:
    for each in (folder, *_components(folder)):
        for name in _kustomization(each).get("resources", ()):
            if (each / name).is_dir():
                yield (each / name).resolve()


@cache
def _objects(folder: Path) -> tuple[Object, ...]:
    """Return the objects of a kustomization as they are written, those of its parts and components too."""
    found: list[Object] = []
    for each in (folder, *_components(folder)):
        whole = _kustomization(each)
        for name in whole.get("resources", ()):
            if (each / name).is_file():
                found += filter(None, yaml.safe_load_all((each / name).read_text()))
        for kind in ("ConfigMap", "Secret"):
            made = whole.get(f"{kind[0].lower()}{kind[1:]}Generator", ())
            found += [{"apiVersion": "v1", "kind": kind, "metadata": {"name": one["name"]}} for one in made]
    return (*found, *chain.from_iterable(map(_objects, _parts(folder))))


def _texts(node: Any, key: str) -> Iterator[str]:
    """Yield the texts that are under a key, anywhere in an object."""
    if isinstance(node, list):
        for value in node:
            yield from _texts(value, key)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == key and isinstance(value, str):
                yield value
            yield from _texts(value, key)


def _field_specs(node: Any) -> Iterator[Mapping[str, str]]:
    if isinstance(node, list):
        for value in node:
            yield from _field_specs(value)
    elif isinstance(node, dict) and "path" in node:
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from _field_specs(value)


def _has(node: Any, path: list[str]) -> bool:
    if isinstance(node, list):
        return any(_has(value, path) for value in node)
    if not path:
        return True
    return isinstance(node, dict) and path[0] in node and _has(node[path[0]], path[1:])
