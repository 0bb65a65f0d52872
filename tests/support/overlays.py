"""The overlays, rendered once for all tests that look at them."""

import copy
from functools import cache
from pathlib import Path

import pytest
import yaml

from support.cluster import Cluster
from support.manifests import FOLDER, OVERLAYS, kustomize, render

NAMES = [str(path.relative_to(FOLDER / "overlays")) for path in OVERLAYS]
EVERY = pytest.mark.parametrize("overlay", NAMES)


@cache
def rendered(overlay: str) -> Cluster:
    """Return an overlay's objects, not to be changed; skips where nothing renders."""
    command = kustomize()
    if command is None:
        pytest.skip("no kustomize and no kubectl for this machine")
    return Cluster(render(command, FOLDER / "overlays" / overlay))


def changed(overlay: str) -> Cluster:
    """Return a copy, to plant a fault in."""
    return copy.deepcopy(rendered(overlay))


def folders(folder: Path) -> set[Path]:
    """Return the folders that one is made of, itself included."""
    found = {folder}
    whole = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in (*whole.get("resources", ()), *whole.get("components", ())):
        if (folder / name).is_dir():
            found |= folders((folder / name).resolve())
    return found
