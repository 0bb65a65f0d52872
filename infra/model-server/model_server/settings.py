"""Settings: the environment variables of the official image, and flags with TensorFlow Serving's names."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message
from pydantic import ValidationError

from caravan.intake import DoorLimits
from caravan.settings import MOST_AT_ONCE, MOST_PORT, DoorSettings, TraceSettings
from caravan.tokens import Tokens, TokenSettings
from model_server.parameters import BatchingParameters
from model_server.stubs import model_server_config_pb2
from model_server.textproto import BATCHING_PARAMETERS, MONITORING_CONFIG

TENSORFLOW = "tensorflow"
DEFAULT_NAME = "model"
# Of JSON, which is many times as large once it is read.
MAX_REST_BODY = 64 << 20
S3_SCHEME = "s3://"
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
_TRUE = frozenset({"true", "1", "t", "yes", "y"})
_FALSE = frozenset({"false", "0", "f", "no", "n"})
_YEAR = 365 * 86_400
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "port": (0, MOST_PORT),
    "rest_api_port": (0, MOST_PORT),
    "rest_api_timeout_in_ms": (1, _YEAR * 1000),
    "model_config_file_poll_wait_seconds": (0, _YEAR),
    "file_system_poll_wait_seconds": (0.001, _YEAR),
    "max_num_load_retries": (0, 2**31 - 1),
    "load_retry_interval_micros": (0, _YEAR * 1_000_000),
    "tensorflow_session_parallelism": (0, MOST_AT_ONCE),
    "tensorflow_intra_op_parallelism": (0, MOST_AT_ONCE),
    "tensorflow_inter_op_parallelism": (0, MOST_AT_ONCE),
    "max_call_seconds": (0.001, _YEAR),
    "max_load_seconds": (0.001, _YEAR),
    "drain_seconds": (0, _YEAR),
}
"""The least and the most of flags that are numbers."""

DESCRIPTION = """\
Serves TensorFlow SavedModels and ONNX models over gRPC and REST, by TensorFlow Serving's published contract.

A model's base path (a directory, or s3://bucket/prefix) holds one sub-directory per version, named by a
number and holding a SavedModel or a model.onnx. It is polled: a new version is loaded beside the old one,
then takes over.
"""
EPILOG = """\
environment, as in the official image (a flag goes before it):
  MODEL_NAME        name of the one model to serve (default: model)
  MODEL_BASE_PATH   its base path is $MODEL_BASE_PATH/$MODEL_NAME (default: /models)
                    (with --model_config_file, a model named here is served beside those of the file)
  S3_ENDPOINT       host:port or URL of the S3 server; S3_USE_HTTPS=0, S3_VERIFY_SSL=0 loosen it
  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION   for s3:// base paths
  TOKENS, TOKENS_FILE   name:token entries; with any, REST and gRPC ask for Authorization: Bearer <token>
  LOG_LEVEL, LOG_FORMAT   INFO, console
  MAX_CONNECTIONS, MAX_SENDERS, LEAST_BODY_RATE, IDLE_SECONDS, BODY_SECONDS, HEAD_SECONDS
                    what may be at the REST port, as at the services' doors
  TRACES            file or otlp (default: off); TRACES_FILE, OTEL_EXPORTER_OTLP_ENDPOINT say where to

examples:
  python -m model_server --model_name=tea --model_base_path=/srv/models/tea
  python -m model_server --model_config_file=models.config --rest_api_port=8501
  curl http://127.0.0.1:8501/v1/models/tea
  curl -d '{"instances":[1.0, 2.0]}' http://127.0.0.1:8501/v1/models/tea:predict
"""


class SettingsError(Exception):
    """What is wrong with the settings, one fault a line."""


@dataclass(frozen=True)
class S3Access:
    """How to reach `s3://` base paths. `secret_key` is never shown."""

    endpoint: str | None
    access_key: str | None
    secret_key: str | None = field(repr=False)
    region: str = "us-east-1"
    verify_ssl: bool = True


@dataclass(frozen=True)
class ConfigFile:
    """A models config: a path or an `s3://` URL, read again every `poll_seconds` (0: only once)."""

    path: str
    poll_seconds: float

    @property
    def in_s3(self) -> bool:
        """Whether it comes out of a bucket, and so may appear after the server has started."""
        return self.path.startswith(S3_SCHEME)


@dataclass(frozen=True)
class Settings:
    """Everything the server is told. Ports: 0 asks the system for a free one.

    `config` lists the models of the start; `config_file` is where they come from, if from a file, and then
    `own` is the model served beside them because it was named by itself.
    """

    config: model_server_config_pb2.ModelServerConfig
    s3: S3Access
    config_file: ConfigFile | None = None
    own: model_server_config_pb2.ModelConfig | None = None
    host: str = "127.0.0.1"
    port: int = 8500
    rest_api_port: int = 8501
    rest_api_timeout: float = 30.0
    max_rest_body: int = MAX_REST_BODY
    batching: BatchingParameters | None = field(default_factory=BatchingParameters)
    poll_seconds: float = 1.0
    max_load_retries: int = 5
    load_retry_seconds: float = 60.0
    warmup: bool = True
    allow_labels_for_unavailable: bool = False
    cors: bool = False
    prometheus_path: str | None = None
    intra_op_threads: int = 2
    inter_op_threads: int = 2
    max_call_seconds: float = 60.0
    max_load_seconds: float = 600.0
    drain_seconds: float = 5.0
    tokens: Tokens = field(default_factory=lambda: Tokens({}))
    log_level: str = "INFO"
    log_format: str = "console"
    traces: TraceSettings = field(default_factory=TraceSettings)
    doors: DoorLimits = field(default_factory=DoorLimits)


def read(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Read flags and environment. Raises SettingsError; `--help` prints and exits as argparse does."""
    env = os.environ if environment is None else environment
    args = _parser(env).parse_args(argv)
    faults = [
        f"--{name} {getattr(args, name)}: it is a number from {least:,} to {most:,}".replace(",", " ")
        for name, (least, most) in _BOUNDS.items()
        if not least <= getattr(args, name) <= most
    ]
    config = _model_config(args, faults)
    batching = _batching(args, faults)
    prometheus_path = _prometheus(args, faults)
    if args.port != 0 and args.port == args.rest_api_port:
        faults.append(
            "--rest_api_port cannot be same as --port. Please use a different port for HTTP/REST API."
        )
    s3 = _s3(env, faults)
    tokens = _tokens(env, faults)
    traces = _traces(env, faults)
    doors = _doors(env, faults)
    if faults:
        raise SettingsError("\n".join(faults))
    return Settings(
        config=config,
        s3=s3,
        config_file=_config_file(args),
        own=_own_model(args) if args.model_config_file and args.model_name else None,
        host=args.host,
        port=args.port,
        rest_api_port=args.rest_api_port,
        rest_api_timeout=args.rest_api_timeout_in_ms / 1000,
        max_rest_body=args.max_rest_body_bytes,
        batching=batching,
        poll_seconds=args.file_system_poll_wait_seconds,
        max_load_retries=args.max_num_load_retries,
        load_retry_seconds=args.load_retry_interval_micros / 1_000_000,
        warmup=args.enable_model_warmup,
        allow_labels_for_unavailable=args.allow_version_labels_for_unavailable_models,
        cors=args.enable_cors_support,
        prometheus_path=prometheus_path,
        intra_op_threads=args.tensorflow_intra_op_parallelism or args.tensorflow_session_parallelism,
        inter_op_threads=args.tensorflow_inter_op_parallelism or args.tensorflow_session_parallelism,
        max_call_seconds=args.max_call_seconds,
        max_load_seconds=args.max_load_seconds,
        drain_seconds=args.drain_seconds,
        tokens=tokens,
        log_level=env.get("LOG_LEVEL", "INFO").upper(),
        log_format=env.get("LOG_FORMAT", "console"),
        traces=traces,
        doors=doors,
    )


def _parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_server",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    name = env.get("MODEL_NAME", DEFAULT_NAME)
    base = env.get("MODEL_BASE_PATH", "/models").rstrip("/")
    cores = os.cpu_count() or 1

    doors = parser.add_argument_group("doors")
    doors.add_argument(
        "--host", default=env.get("HOST", "127.0.0.1"), help="address to listen on (%(default)s)"
    )
    doors.add_argument("--port", type=int, default=8500, help="gRPC port (%(default)s)")
    doors.add_argument("--rest_api_port", type=int, default=8501, help="REST port (%(default)s)")
    doors.add_argument(
        "--rest_api_timeout_in_ms", type=int, default=30000, help="a REST call may take (%(default)s)"
    )
    doors.add_argument(
        "--max_rest_body_bytes",
        type=int,
        default=MAX_REST_BODY,
        help="largest REST body, unpacked (%(default)s)",
    )
    _switch(doors, "--enable_cors_support", default=False, text="let browsers of other origins call REST")
    doors.add_argument(
        "--monitoring_config_file", help="text MonitoringConfig: switches Prometheus metrics on"
    )
    _switch(
        doors, "--enable_prometheus", default=False, text=f"serve {PROMETHEUS_PATH}, without a config file"
    )

    models = parser.add_argument_group("models")
    models.add_argument("--model_name", default=env.get("MODEL_NAME"), help=f"name of the model ({name})")
    models.add_argument(
        "--model_base_path", default=f"{base}/{name}", help="directory or s3:// URL (%(default)s)"
    )
    models.add_argument(
        "--model_config_file",
        help="text ModelServerConfig, a path or an s3:// URL: several models, policies, labels",
    )
    models.add_argument(
        "--model_config_file_poll_wait_seconds",
        type=float,
        default=0.0,
        help="between two readings of that file (0: it is read once)",
    )
    _switch(
        models,
        "--allow_version_labels_for_unavailable_models",
        default=False,
        text="let a new label point at a version that is not loaded yet",
    )
    models.add_argument(
        "--file_system_poll_wait_seconds", type=float, default=1.0, help="between two looks (%(default)s)"
    )
    models.add_argument("--max_num_load_retries", type=int, default=5, help="retries of a load (%(default)s)")
    models.add_argument(
        "--load_retry_interval_micros", type=int, default=60_000_000, help="between two tries (%(default)s)"
    )
    _switch(models, "--enable_model_warmup", default=True, text="run each signature once before it serves")

    work = parser.add_argument_group("work")
    _switch(work, "--enable_batching", default=True, text="join concurrent requests")
    work.add_argument("--batching_parameters_file", help="text BatchingParameters")
    work.add_argument(
        "--tensorflow_session_parallelism", type=int, default=cores, help="threads (%(default)s)"
    )
    work.add_argument("--tensorflow_intra_op_parallelism", type=int, default=0, help="threads within an op")
    work.add_argument("--tensorflow_inter_op_parallelism", type=int, default=0, help="threads across ops")
    work.add_argument(
        "--max_call_seconds",
        type=float,
        default=60.0,
        help="a call of a model may take before it is cancelled (%(default)s)",
    )
    work.add_argument(
        "--max_load_seconds",
        type=float,
        default=600.0,
        help="a version may take to load and warm up before it is given up (%(default)s)",
    )
    work.add_argument(
        "--drain_seconds", type=float, default=5.0, help="for requests in flight at the end (%(default)s)"
    )
    return parser


def _switch(group: argparse._ArgumentGroup, name: str, *, default: bool, text: str) -> None:
    group.add_argument(
        name,
        type=_boolean,
        nargs="?",
        const=True,
        default=default,
        metavar="true|false",
        help=f"{text} ({str(default).lower()})",
    )


def _boolean(text: str) -> bool:
    lowered = text.lower()
    if lowered not in _TRUE | _FALSE:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return lowered in _TRUE


def _model_config(args: argparse.Namespace, faults: list[str]) -> model_server_config_pb2.ModelServerConfig:
    config = model_server_config_pb2.ModelServerConfig()
    file = _config_file(args)
    if file is None:
        config.model_config_list.config.append(_own_model(args))
    elif not file.in_s3:
        _read_text(file.path, config, faults)
    return config


def _config_file(args: argparse.Namespace) -> ConfigFile | None:
    if not args.model_config_file:
        return None
    return ConfigFile(args.model_config_file, args.model_config_file_poll_wait_seconds)


def _own_model(args: argparse.Namespace) -> model_server_config_pb2.ModelConfig:
    return model_server_config_pb2.ModelConfig(
        name=args.model_name or DEFAULT_NAME, base_path=args.model_base_path, model_platform=TENSORFLOW
    )


def _batching(args: argparse.Namespace, faults: list[str]) -> BatchingParameters | None:
    if not args.enable_batching:
        if args.batching_parameters_file:
            faults.append("--batching_parameters_file supplied without --enable_batching")
        return None
    if not args.batching_parameters_file:
        return BatchingParameters()
    message: Any = BATCHING_PARAMETERS()
    if not _read_text(args.batching_parameters_file, message, faults):
        return None
    try:
        return BatchingParameters.from_message(message)
    except ValueError as exc:
        faults.append(f"{args.batching_parameters_file}: {exc}")
        return None


def _prometheus(args: argparse.Namespace, faults: list[str]) -> str | None:
    path = PROMETHEUS_PATH if args.enable_prometheus else None
    if args.monitoring_config_file:
        message: Any = MONITORING_CONFIG()
        if _read_text(args.monitoring_config_file, message, faults) and message.prometheus_config.enable:
            path = message.prometheus_config.path or PROMETHEUS_PATH
    return path


def _read_text(file: str, message: Message, faults: list[str]) -> bool:
    try:
        text_format.Parse(Path(file).read_text(encoding="utf-8"), message)
    except (OSError, UnicodeDecodeError, text_format.ParseError) as exc:
        faults.append(f"Invalid protobuf file: '{file}': {exc}")
        return False
    return True


def _tokens(env: Mapping[str, str], faults: list[str]) -> Tokens:
    try:
        given = TokenSettings.model_validate(
            {"tokens": env.get("TOKENS", ""), "tokens_file": env.get("TOKENS_FILE", "")}
        )
    except ValidationError as exc:
        faults += _named(exc)
        return Tokens({})
    try:
        return given.door
    except ValueError as exc:  # a name in both
        faults.append(f"TOKENS and TOKENS_FILE: {exc}")
        return Tokens({})


def _traces(env: Mapping[str, str], faults: list[str]) -> TraceSettings:
    told = {name: env.get(name.upper(), one.default) for name, one in TraceSettings.model_fields.items()}
    try:
        return TraceSettings.model_validate(told)
    except ValidationError as exc:
        faults += _named(exc)
        return TraceSettings(traces="off")


def _doors(env: Mapping[str, str], faults: list[str]) -> DoorLimits:
    given = {name: env[name.upper()] for name in DoorSettings.model_fields if env.get(name.upper())}
    try:
        return DoorSettings.model_validate(given).doors
    except ValidationError as exc:
        faults += _named(exc)
        return DoorLimits()


def _named(exc: ValidationError) -> list[str]:
    # Without what was given: tokens are not shown.
    return [
        f"{'.'.join(map(str, fault['loc'])).upper() or 'TRACES'}: {fault['msg']}"
        for fault in exc.errors(include_input=False, include_url=False, include_context=False)
    ]


def _s3(env: Mapping[str, str], faults: list[str]) -> S3Access:
    flags = {}
    for name in ("S3_USE_HTTPS", "S3_VERIFY_SSL"):
        text = (env.get(name) or "1").lower()
        if text not in _TRUE | _FALSE:
            faults.append(f"{name} is neither true nor false: {text!r}")
        flags[name] = text in _TRUE
    endpoint = env.get("S3_ENDPOINT") or None
    if endpoint is not None and "://" not in endpoint:
        endpoint = f"{'https' if flags['S3_USE_HTTPS'] else 'http'}://{endpoint}"
    return S3Access(
        endpoint=endpoint,
        access_key=env.get("AWS_ACCESS_KEY_ID") or None,
        secret_key=env.get("AWS_SECRET_ACCESS_KEY") or None,
        region=env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1",
        verify_ssl=flags["S3_VERIFY_SSL"],
    )
