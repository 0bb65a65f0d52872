"""What a container of ours is told, judged: all of it settings, none missing that is needed, all valid."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pydantic import ValidationError

from caravan.settings import ServiceSettings
from delivery.settings import DeliverySettings
from edge_manager.settings import EdgeManagerSettings
from feeder.settings import FeederSettings
from monitor.settings import MonitorSettings
from shopper.settings import ShopperSettings
from support.dockerfiles import IMAGES, parse
from training.settings import TrainingSettings

SETTINGS: dict[str, type[ServiceSettings]] = {
    "delivery": DeliverySettings,
    "edge-manager": EdgeManagerSettings,
    "feeder": FeederSettings,
    "monitor": MonitorSettings,
    "shopper": ShopperSettings,
    "training": TrainingSettings,
}
"""The settings of each image of ours; the model server has none of this kind."""

MODEL_SERVER = {
    *(
        "MODEL_NAME",
        "MODEL_BASE_PATH",
        "S3_ENDPOINT",
        "S3_USE_HTTPS",
        "S3_VERIFY_SSL",
        "TOKENS",
        "TOKENS_FILE",
    ),
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "HOST", "LOG_LEVEL", "LOG_FORMAT"),
}
SYSTEM = {"PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "HOME"}
FILES = {"TOKENS_FILE", "CATALOGUE", "PUBLIC_KEY", "SIGNING_KEY", "FEEDER_CA", "TFSERVING_CA"}
"""Settings that name a file, beside those that end with the name of a TLS file."""

_NEEDED_BY_BRIDGE = {"MQTT_HOST", "EDGE"}


def image_name(reference: str) -> str | None:
    """Return which of our images a reference names; None for somebody else's."""
    match = re.fullmatch(r"(?:.+/)?caravan/([a-z-]+)(?::[\w.-]+)?", reference)
    return match[1] if match else None


def image_env(image: str) -> dict[str, str]:
    """Return what the image itself sets."""
    return parse(IMAGES[image].read_text())[-1].env


def faults(where: str, image: str, env: Mapping[str, str]) -> list[str]:
    """Judge a container's environment.

    Args:
        where: what the messages call the container.
        image: which of our images it runs.
        env: what it is told, the image's own variables left out.

    """
    if image == "model-server":
        return [f"{where}: {name} is no setting of {image}" for name in sorted(set(env) - MODEL_SERVER)]
    fields = {name.upper() for name in SETTINGS[image].model_fields}
    found = [f"{where}: {name} is no setting of {image}" for name in sorted(set(env) - fields)]
    found += [f"{where}: {name} is not set" for name in sorted(_needed(image, env) - set(env))]
    return found + [f"{where}: {fault}" for fault in _invalid(image, env)]


def _needed(image: str, env: Mapping[str, str]) -> set[str]:
    """Return what has no default, or one that means this machine and so nothing in a container."""
    needed = set()
    for name, field in SETTINGS[image].model_fields.items():
        default = field.default
        if field.is_required() or (isinstance(default, str) and "127.0.0.1" in default):
            needed.add(name.upper())
        if name in {"edge", "edges"}:
            needed.add(name.upper())
    needed -= {"HOST"}  # the image says it
    if image == "monitor" and env.get("ROUTES") == "hub":
        needed -= _NEEDED_BY_BRIDGE
    return needed


def _invalid(image: str, env: Mapping[str, str]) -> list[str]:
    # Files are there only in the container.
    told = {name: value for name, value in (image_env(image) | dict(env)).items() if not _is_file(name)}
    with _environment(told):
        try:
            SETTINGS[image]()
        except ValidationError as exc:
            return [
                f"{'_'.join(map(str, fault['loc'][:1])).upper()}: {fault['msg']}"
                for fault in exc.errors(include_url=False, include_input=False)
            ]
    return []


def is_path(name: str) -> bool:
    """Tell whether a setting names a file or a directory that somebody mounts."""
    return _is_file(name) or name.endswith(("_DIR", "_DIRECTORY"))


def _is_file(name: str) -> bool:
    tls = name.endswith(("_CA", "_CERT", "_KEY")) and not name.endswith(("ACCESS_KEY", "SECRET_KEY"))
    return tls or name in FILES


@contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    kept = dict(os.environ)
    os.environ.clear()
    os.environ.update(env)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
