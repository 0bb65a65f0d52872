"""The Grafana dashboard: what it asks for is there, with the labels that it names."""

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from support.dockerfiles import ROOT
from support.manifests import FOLDER

BOARD = json.loads((FOLDER / "components/service-monitors/central/caravan.json").read_text())
PANELS = pytest.mark.parametrize("panel", BOARD["panels"], ids=lambda panel: str(panel["title"]))
KINDS = {"Counter", "Gauge", "Histogram"}
EVERYWHERE = {"namespace", "pod", "job"}
"""Labels that Prometheus gives by itself."""


@cache
def metrics() -> dict[str, set[str]]:
    """Return the metrics of the services, as their sources declare them: name → labels."""
    return dict(found for folder in ("services", "infra") for found in _declared(folder))


def _declared(folder: str) -> Iterator[tuple[str, set[str]]]:
    for path in (ROOT / folder).glob("*/*/**/*.py"):
        text = path.read_text()
        if "prometheus_client" not in text:
            continue
        for call in ast.walk(ast.parse(text)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in KINDS:
                name, _, *labels = [ast.literal_eval(argument) for argument in call.args]
                given = set(labels[0]) if labels else set()
                if call.func.id == "Histogram":
                    yield f"{name}_bucket", given | {"le"}
                yield name, given


@PANELS
def test_a_panel_asks_for_metrics_and_labels_that_there_are(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        asked = re.findall(r"\b((?:caravan|shopper|monitor)_\w+)", target["expr"])
        assert asked
        assert set(asked) <= metrics().keys()
        known = EVERYWHERE.union(*(metrics()[name] for name in asked))
        by = [name for names in re.findall(r"by \(([^)]*)\)", target["expr"]) for name in names.split(", ")]
        chosen = re.findall(r"[{,]\s*(\w+)\s*=", target["expr"])
        shown = re.findall(r"{{(\w+)}}", target["legendFormat"])
        assert {*by, *chosen, *shown} <= known
        assert set(shown) <= set(by)


def test_panels_do_not_lie_on_each_other() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in BOARD["panels"]]
    assert len(set(places)) == len(places)
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(places)
