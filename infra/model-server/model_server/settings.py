"""Settings: the environment variables of the official image, and flags with TensorFlow Serving's names."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

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
    region: str
    verify_ssl: bool


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
    config_file: ConfigFile | None
    own: model_server_config_pb2.ModelConfig | None
    host: str
    port: int
    rest_api_port: int
    rest_api_timeout: float
    max_rest_body: int
    batching: BatchingParameters | None
    poll_seconds: float
    max_load_retries: int
    load_retry_seconds: float
    warmup: bool
    allow_labels_for_unavailable: bool
    cors: bool
    prometheus_path: str | None
    intra_op_threads: int
    inter_op_threads: int
    max_call_seconds: float
    max_load_seconds: float
    drain_seconds: float
    tokens: Tokens
    log_level: str
    log_format: str
    traces: TraceSettings
    doors: DoorLimits


class _Flag(NamedTuple):
    """A flag: its default says its type, text if it has none; `bounds` are a number's least and most."""

    name: str
    default: str | float | None
    text: str
    bounds: tuple[float, float] | None = None


def read(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """Read flags and environment. Raises SettingsError; `--help` prints and exits as argparse does."""
    env = os.environ if environment is None else environment
    flags = _flags(env)
    args = _parser(flags).parse_args(argv)
    faults = [
        "--{} {}: it is a number from {:,} to {:,}".format(name, given, *bounds).replace(",", " ")
        for name, _, _, bounds in chain.from_iterable(flags.values())
        if bounds is not None and not bounds[0] <= (given := getattr(args, name)) <= bounds[1]
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


def _flags(env: Mapping[str, str]) -> Mapping[str, Sequence[_Flag]]:
    """Return all flags, by the heading that `--help` shows them under."""
    name = env.get("MODEL_NAME", DEFAULT_NAME)
    base = env.get("MODEL_BASE_PATH", "/models").rstrip("/")
    cores = os.cpu_count() or 1
    return {
        "doors": (
            _Flag("host", env.get("HOST", "127.0.0.1"), "address to listen on (%(default)s)"),
            _Flag("port", 8500, "gRPC port (%(default)s)", (0, MOST_PORT)),
            _Flag("rest_api_port", 8501, "REST port (%(default)s)", (0, MOST_PORT)),
            _Flag("rest_api_timeout_in_ms", 30_000, "a REST call may take (%(default)s)", (1, _YEAR * 1000)),
            _Flag("max_rest_body_bytes", MAX_REST_BODY, "largest REST body, unpacked (%(default)s)"),
            _Flag("enable_cors_support", default=False, text="let browsers of other origins call REST"),
            _Flag("monitoring_config_file", None, "text MonitoringConfig: switches Prometheus metrics on"),
            _Flag("enable_prometheus", default=False, text=f"serve {PROMETHEUS_PATH}, without a config file"),
        ),
        "models": (
            _Flag("model_name", env.get("MODEL_NAME"), f"name of the model ({name})"),
            _Flag("model_base_path", f"{base}/{name}", "directory or s3:// URL (%(default)s)"),
            _Flag(
                "model_config_file",
                None,
                "text ModelServerConfig, a path or an s3:// URL: several models, policies, labels",
            ),
            _Flag(
                "model_config_file_poll_wait_seconds",
                0.0,
                "between two readings of that file (0: it is read once)",
                (0, _YEAR),
            ),
            _Flag(
                "allow_version_labels_for_unavailable_models",
                default=False,
                text="let a new label point at a version that is not loaded yet",
            ),
            _Flag("file_system_poll_wait_seconds", 1.0, "between two looks (%(default)s)", (0.001, _YEAR)),
            _Flag("max_num_load_retries", 5, "retries of a load (%(default)s)", (0, 2**31 - 1)),
            _Flag(
                "load_retry_interval_micros",
                60_000_000,
                "between two tries (%(default)s)",
                (0, _YEAR * 1_000_000),
            ),
            _Flag("enable_model_warmup", default=True, text="run each signature once before it serves"),
        ),
        "work": (
            _Flag("enable_batching", default=True, text="join concurrent requests"),
            _Flag("batching_parameters_file", None, "text BatchingParameters"),
            _Flag("tensorflow_session_parallelism", cores, "threads (%(default)s)", (0, MOST_AT_ONCE)),
            _Flag("tensorflow_intra_op_parallelism", 0, "threads within an op", (0, MOST_AT_ONCE)),
            _Flag("tensorflow_inter_op_parallelism", 0, "threads across ops", (0, MOST_AT_ONCE)),
            _Flag(
                "max_call_seconds",
                60.0,
                "a call of a model may take before it is cancelled (%(default)s)",
                (0.001, _YEAR),
            ),
            _Flag(
                "max_load_seconds",
                600.0,
                "a version may take to load and warm up before it is given up (%(default)s)",
                (0.001, _YEAR),
            ),
            _Flag("drain_seconds", 5.0, "for requests in flight at the end (%(default)s)", (0, _YEAR)),
        ),
    }


def _parser(flags: Mapping[str, Sequence[_Flag]]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m model_server",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for title, some in flags.items():
        group = parser.add_argument_group(title)
        for name, default, text, _ in some:
            kind: dict[str, Any] = {"type": str if default is None else type(default), "help": text}
            if isinstance(default, bool):
                kind = {"type": _boolean, "nargs": "?", "const": True, "metavar": "true|false"}
                kind["help"] = f"{text} ({str(default).lower()})"
            group.add_argument(f"--{name}", default=default, **kind)
    return parser


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
