"""A ModelServerConfig message, checked and turned into what the manager takes."""

import re
from typing import Any

from model_server.errors import ServingError, invalid
from model_server.manager import ModelConfig
from model_server.stubs import model_server_config_pb2
from model_server.versions import All, Latest, Policy, Specific

PLATFORM = "tensorflow"
_PATH = re.compile(r"/.*|s3://[A-Za-z0-9._-]+(/.*)?")


def model_configs(config: model_server_config_pb2.ModelServerConfig) -> dict[str, ModelConfig]:
    """Return the models by name. Raises ServingError(INVALID_ARGUMENT) for what cannot be served."""
    configs: dict[str, ModelConfig] = {}
    for model in config.model_config_list.config:
        if not model.name:
            raise invalid("ModelConfig has no name specified.")
        if model.name in configs:
            raise invalid(f"Illegal to list model {model.name} multiple times in config list")
        _check_platform(model)
        _check_path(model)
        configs[model.name] = ModelConfig(
            model.name, model.base_path, _policy(model.model_version_policy), dict(model.version_labels)
        )
    return configs


def _check_platform(model: model_server_config_pb2.ModelConfig) -> None:
    if model.model_type and model.model_platform:
        raise invalid(
            "Illegal setting both ModelServerConfig::model_type (deprecated) and "
            "ModelServerConfig::model_platform."
        )
    if not model.model_type and not model.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
            "ModelServerConfig::model_platform."
        )
    platform = model.model_platform or model_server_config_pb2.ModelType.Name(model.model_type).lower()
    if platform != PLATFORM:
        raise invalid(f"Model {model.name} requests unsupported platform {platform}")


def _check_path(model: model_server_config_pb2.ModelConfig) -> None:
    if _PATH.fullmatch(model.base_path) is None or not model.base_path.isprintable():
        raise _path_error(model)


def _path_error(model: model_server_config_pb2.ModelConfig) -> ServingError:
    if "://" in model.base_path and not model.base_path.startswith("s3://"):
        scheme = model.base_path.partition("://")[0]
        return invalid(f"File system scheme '{scheme}' not implemented (file: '{model.base_path}')")
    return invalid(
        f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
    )


def _policy(message: Any) -> Policy:
    """`message` is a ServableVersionPolicy, a nested message that has no type of its own in the stubs."""
    choice = message.WhichOneof("policy_choice")
    if choice == "all":
        return All()
    if choice == "specific":
        return Specific(frozenset(message.specific.versions))
    return Latest(message.latest.num_versions or 1)
