"""What a container of ours is told, judged: all of it settings, none missing that is needed, all valid."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings

import model_server.settings
from caravan.settings import ServiceSettings
from caravan_cli.settings import AccountSettings, EdgesAtCentral, OriginSettings, WithdrawSettings
from delivery.settings import DeliverySettings
from edge_manager.settings import EdgeManagerSettings
from feeder.settings import FeederSettings
from monitor.settings import MonitorSettings
from shopper.settings import ShopperSettings
from support.dockerfiles import stages
from training.settings import TrainingSettings


class CliSettings(AccountSettings, EdgesAtCentral, OriginSettings, WithdrawSettings):
    """What the operator's commands read, one or the other."""


SERVICES: dict[str, type[ServiceSettings]] = {
    "delivery": DeliverySettings,
    "edge-manager": EdgeManagerSettings,
    "feeder": FeederSettings,
    "monitor": MonitorSettings,
    "shopper": ShopperSettings,
    "training": TrainingSettings,
}
"""The settings of each service of ours; the model server has flags as well, and reads both by itself."""
SETTINGS: dict[str, type[BaseSettings]] = {**SERVICES, "cli": CliSettings}

PATHS = {
    name.upper()
    for settings in SETTINGS.values()
    for name, field in settings.model_fields.items()
    if Path in (field.annotation, *get_args(field.annotation))
}
"""Settings that name a file or a folder."""

FILES = {name for name in PATHS if not name.endswith(("_DIR", "_DIRECTORY"))}
"""Of these, the files: they are there only in the container, and settings look whether they are."""

NEEDED_BY_ROUTE = {
    "bridge": {"EDGE", "MQTT_HOST"},
    "hub": {"EDGES", "S3_CENTRAL_ENDPOINT", "S3_CENTRAL_ACCESS_KEY", "S3_CENTRAL_SECRET_KEY"},
}
"""What the monitor service needs for one of its routes alone."""

NEEDED_BY_COMMAND = {"EDGE", "EDGES", "S3_EDGE_ENDPOINT", "S3_EDGE_ACCESS_KEY", "S3_EDGE_SECRET_KEY"}
"""What an operator's command needs on one side of the link alone: central does not reach an edge's store."""


def image_name(reference: str) -> str | None:
    """Return which of our images a reference names; None for somebody else's."""
    match = re.fullmatch(r"(?:.+/)?caravan/([a-z-]+)(?::[\w.-]+)?", reference)
    return match[1] if match else None


def image_env(image: str) -> dict[str, str]:
    """Return what the image itself sets."""
    return stages(image)[-1].env


def faults(where: str, image: str, env: Mapping[str, str], args: Sequence[str] = ()) -> list[str]:
    """Judge a container's environment.

    Args:
        where: what the messages call the container.
        image: which of our images it runs.
        env: what it is told, the image's own variables left out.
        args: its command's arguments, which are the model server's flags.

    """
    told = {name: value for name, value in env.items() if name not in FILES}
    if image == "model-server":
        known, invalid = _model_server(told, args)
        missing = set()
    else:
        known = {name.upper() for name in SETTINGS[image].model_fields}
        invalid = _invalid(image, told)
        missing = _needed(image, env) - set(env)
    found = [f"{name} is no setting of {image}" for name in sorted(set(env) - known)]
    found += [f"{name} is not set" for name in sorted(missing)]
    return [f"{where}: {fault}" for fault in found + invalid]


def _model_server(env: Mapping[str, str], args: Sequence[str]) -> tuple[set[str], list[str]]:
    """Return the variables that the model server reads, and what it says to these."""
    asked: set[str] = set()

    class Environment(dict[str, str]):
        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            asked.add(key)
            return super().get(key, default)

    try:
        model_server.settings.read(args, Environment(env))
    except model_server.settings.SettingsError as exc:
        return asked, [str(exc)]
    except SystemExit:
        return asked, [f"{' '.join(args)}: refused"]
    return asked, []


def _needed(image: str, env: Mapping[str, str]) -> set[str]:
    """Return what has no default, or one that means this machine and so nothing in a container."""
    needed = {
        name.upper()
        for name, field in SETTINGS[image].model_fields.items()
        if field.is_required() or name in {"edge", "edges"} or _means_this_machine(field.default)
    }
    needed -= image_env(image).keys()
    if image == "cli":
        needed -= NEEDED_BY_COMMAND
    if image == "monitor":
        running = env.get("ROUTES", "bridge").split(",")
        needed -= set().union(*(names for route, names in NEEDED_BY_ROUTE.items() if route not in running))
    return needed


def _means_this_machine(default: object) -> bool:
    if isinstance(default, SecretStr):
        return default.get_secret_value() != ""  # a key of the embedded stack's stores
    return isinstance(default, str) and "127.0.0.1" in default


def _invalid(image: str, env: Mapping[str, str]) -> list[str]:
    own = {name: value for name, value in image_env(image).items() if name not in FILES}
    with _environment(own | dict(env)):
        try:
            SETTINGS[image]()
        except ValidationError as exc:
            return [
                f"{'_'.join(map(str, fault['loc'][:1])).upper()}: {fault['msg']}"
                for fault in exc.errors(include_url=False, include_input=False)
            ]
    return []


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
