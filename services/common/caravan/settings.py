"""Settings: one frozen object per service, read from the environment, every fault named at once."""

from __future__ import annotations

import re
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from caravan.contracts import edge_faults
from caravan.errors import Permanent
from caravan.groups import (
    Groups,
    group_faults,
    owner_of,
    parse_groups,
    parse_products,
    product_faults,
    sharing,
)
from caravan.intake import DoorLimits
from caravan.tls import client_context

S = TypeVar("S", bound=BaseSettings)

_SERVER = re.compile(r"([^\s:,\[\]/@]+|\[[0-9a-fA-F:.]+\])(?::(\d{1,5}))?")
MOST_PORT = 65535
_PARTITIONS = re.compile(r"(?:([a-zA-Z0-9._-]+)=)?([1-9]\d{0,3})")


def _edge(value: str) -> str:
    _edges((value,))
    return value


def _edges(values: tuple[str, ...]) -> tuple[str, ...]:
    if faults := edge_faults(values):
        raise ValueError("; ".join(faults))
    return values


def _host(name: str) -> str:
    """Refuse what is longer than names are: resolvers raise no OSError for it."""
    try:
        name.encode("idna")
    except UnicodeError as exc:
        message = f"no host has such a name: {exc}"
        raise ValueError(message) from exc
    return name


def _is_server(text: str) -> bool:
    found = _SERVER.fullmatch(text)
    try:
        return found is not None and 0 < int(found[2] or 1) <= MOST_PORT and bool(_host(found[1]))
    except ValueError:
        return False


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _read_by(parse: Callable[[str], Members]) -> BeforeValidator:
    return BeforeValidator(lambda value: parse(value) if isinstance(value, str) else value)


def _fit(before: str, faults: Callable[[Members, Any], list[str]]) -> AfterValidator:
    """Hold a field against the one before it, unless that has faults itself."""

    def check(members: Members, info: ValidationInfo) -> Members:
        if before in info.data and (found := faults(members, info.data[before])):
            raise ValueError("; ".join(found))
        return members

    return AfterValidator(check)


Members = dict[str, tuple[str, ...]]
EdgeId = Annotated[str, AfterValidator(_edge)]
EdgeIds = Annotated[
    tuple[str, ...], NoDecode, BeforeValidator(_words), AfterValidator(_edges), Field(min_length=1)
]
GroupsOfEdges = Annotated[Members, NoDecode, _read_by(parse_groups), _fit("edges", group_faults)]
ProductsOfEdges = Annotated[Members, NoDecode, _read_by(parse_products), _fit("edge_groups", product_faults)]
Host = Annotated[str, AfterValidator(_host)]
Port = Annotated[int, Field(ge=0, le=MOST_PORT)]
MOST_AT_ONCE = 10_000
AtOnce = Annotated[int, Field(ge=1, le=MOST_AT_ONCE)]
"""How many of something may be on their way side by side, each with a task or a thread."""
MOST_SECONDS = 10 * 365 * 86_400
"""Ten years: to gRPC a deadline beyond some centuries is one that is over."""
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS)]
SecondsOrNone = Annotated[float, Field(ge=0, le=MOST_SECONDS)]


def authority(host: str, port: int) -> str:
    """Return `host:port`, with an address of IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _http_address(text: str) -> str:
    """Refuse an address that no client can use, and one with a password: addresses come into logs."""
    try:
        parts = urlsplit(text)
        usable = parts.port != 0 and bool(_host(parts.hostname or "")) and not re.search(r"\s", text)
    except ValueError:
        usable = False
    if not usable or parts.scheme not in {"http", "https"}:
        message = "it is not http://host or http://host:port"
        raise ValueError(message)
    if "@" in parts.netloc:
        message = "an address comes into logs: leave out the name and the password in it"
        raise ValueError(message)
    return text


HttpAddress = Annotated[str, AfterValidator(_http_address)]
OptionalHttpAddress = Annotated[str, AfterValidator(lambda text: text and _http_address(text))]
_none_if_empty = BeforeValidator(lambda value: value or None)
OptionalPath = Annotated[Path | None, _none_if_empty]
"""A path; None if its variable is empty."""
OptionalFile = Annotated[FilePath | None, _none_if_empty]
"""The path of a file that is there; None if its variable is empty."""


def _in_a_header(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]*", secret.get_secret_value()):
        message = "it goes into a header, so it has visible characters of ASCII alone"
        raise ValueError(message)
    return secret


HeaderSecret = Annotated[SecretStr, AfterValidator(_in_a_header)]


def _authorities(path: Path | None) -> Path | None:
    try:
        ssl.create_default_context(cafile=path) if path else None
    except OSError as exc:
        message = f"{path} holds no certificates in PEM ({exc})"
        raise ValueError(message) from exc
    return path


OptionalAuthorities = Annotated[OptionalFile, AfterValidator(_authorities)]
"""A PEM file of the authorities to trust; None, for the system's, if its variable is empty."""


def _share(value: object) -> object:
    if not isinstance(value, str):
        return value
    number, percent, rest = value.strip().partition("%")
    if rest or not percent:
        return value.strip() or 0
    try:
        return float(number) / 100
    except ValueError:
        return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, le=1)]
"""A share, as `10%` or `0.1`; none if its variable is empty."""


KAFKA_FILES = ("KAFKA_SSL_CA", "KAFKA_SSL_CERT", "KAFKA_SSL_KEY")


class TraceSettings(BaseSettings):
    """Where traces go: nowhere, into a file, or to a collector by OTLP over HTTP."""

    traces: Literal["off", "file", "otlp"] = "off"
    traces_file: OptionalPath = None
    """File of traces; `.caravan/traces/<service>.jsonl` if empty."""
    traces_per_second: float = Field(default=10.0, gt=0)
    """Most traces that begin here per second and route; traces from elsewhere always continue."""
    otel_exporter_otlp_endpoint: OptionalHttpAddress = ""

    @model_validator(mode="after")
    def _a_collector_has_an_address(self) -> Self:
        if self.traces == "otlp" and not self.otel_exporter_otlp_endpoint:
            message = "TRACES is otlp: set OTEL_EXPORTER_OTLP_ENDPOINT to the collector, http://host:4318"
            raise ValueError(message)
        return self


class DoorSettings(BaseSettings):
    """What may be at the HTTP doors at once, and how long it may take: see `DoorLimits`."""

    max_connections: int = Field(default=1000, gt=0)
    max_senders: int = Field(default=256, gt=0)
    least_body_rate: float = Field(default=1024, ge=0)
    idle_seconds: Seconds = 30
    body_seconds: Seconds = 300
    head_seconds: Seconds = 15

    @property
    def doors(self) -> DoorLimits:
        """The limits as one value."""
        return DoorLimits(
            self.max_connections,
            self.max_senders,
            self.least_body_rate,
            self.idle_seconds,
            self.body_seconds,
            self.head_seconds,
        )


class ServiceSettings(TraceSettings, DoorSettings):
    """What every service has.

    Loopback is the default; in a container `HOST` is 0.0.0.0.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    host: Host = "127.0.0.1"
    port: Port = 0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"


class EdgesSettings(BaseSettings):
    """Which edges there are, and which of them share a model."""

    edges: EdgeIds = ("edge1",)
    edge_groups: GroupsOfEdges = {}
    """`north=edge1,edge2 south=edge7`: the edges of a group share one model; empty for none."""
    edge_products: ProductsOfEdges = {}
    """`edge1=chai,house_blend`: classes that one edge of a group has for itself, in a model of its own."""

    @property
    def sharing(self) -> Groups:
        """The edges of each group that serve what it learns: those without products of their own."""
        return sharing(self.edge_groups, self.edge_products)

    def owner_of(self, edge: str) -> str:
        """Return whose model an edge serves: its group's, or its own. A group's id is its own owner's."""
        return owner_of(edge, self.sharing)


class KafkaSettings(BaseSettings):
    """How to reach Kafka: plain, TLS, mutual TLS or SASL."""

    kafka_bootstrap_servers: str = "127.0.0.1:9092"
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str = ""
    kafka_sasl_password: SecretStr = SecretStr("")
    kafka_ssl_ca: OptionalPath = None
    kafka_ssl_cert: OptionalPath = None
    kafka_ssl_key: OptionalPath = None
    kafka_idempotence: bool = False
    kafka_max_message_bytes: int = Field(default=20 * 2**20, gt=0, lt=2**31)
    kafka_request_seconds: float = Field(default=15.0, gt=0, le=3600)
    kafka_gap_seconds: SecondsOrNone = 0.0
    kafka_create_topics: bool = True
    kafka_replication: int = Field(default=1, ge=1, lt=2**15)
    kafka_partitions: str = "1"
    """Partitions of a new topic: a number for all, or `trigger=2` for one; several with commas."""

    # Each field is checked against those before it, so that all faults are found, not the first alone.

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _servers(cls, text: str) -> str:
        faults = [
            repr(re.sub(".*@", "…@", entry)) for entry in text.split(",") if not _is_server(entry.strip())
        ]
        if faults:
            message = f"host:port, or several with commas between; not so: {', '.join(faults)}"
            raise ValueError(message)
        return text

    @field_validator("kafka_partitions")
    @classmethod
    def _counts(cls, text: str) -> str:
        faults = [repr(entry) for entry in text.split(",") if not _PARTITIONS.fullmatch(entry.strip())]
        if faults:
            message = (
                f"a number, or topic=number, or several with commas between; not so: {', '.join(faults)}"
            )
            raise ValueError(message)
        return text

    @field_validator("kafka_sasl_username", "kafka_sasl_password")
    @classmethod
    def _for_sasl(cls, value: str | SecretStr, info: ValidationInfo) -> str | SecretStr:
        protocol = info.data.get("kafka_security_protocol", "")
        given = value.get_secret_value() if isinstance(value, SecretStr) else value
        if protocol.startswith("SASL") and not given:
            message = f"KAFKA_SECURITY_PROTOCOL {protocol} needs it"
            raise ValueError(message)
        if protocol and not protocol.startswith("SASL") and given:
            message = f"KAFKA_SECURITY_PROTOCOL {protocol} does not use it: SASL_SSL or SASL_PLAINTEXT do"
            raise ValueError(message)
        return value

    @field_validator("kafka_ssl_ca", "kafka_ssl_cert", "kafka_ssl_key")
    @classmethod
    def _for_tls(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        protocol = info.data.get("kafka_security_protocol", "")
        if path is not None:
            if protocol and not protocol.endswith("SSL"):
                message = f"KAFKA_SECURITY_PROTOCOL {protocol} does not use it: SSL or SASL_SSL do"
                raise ValueError(message)
            if not path.is_file():
                message = "there is no such file"
                raise ValueError(message)
        return path

    @field_validator("kafka_ssl_key")
    @classmethod
    def _files_fit(cls, key: Path | None, info: ValidationInfo) -> Path | None:
        files = info.data.get("kafka_ssl_ca"), info.data.get("kafka_ssl_cert"), key
        if any(files) and {"kafka_ssl_ca", "kafka_ssl_cert"} <= info.data.keys():
            try:
                client_context(*files, KAFKA_FILES)
            except Permanent as exc:
                raise ValueError(str(exc)) from exc
        return key

    def partitions(self, topic: str) -> int:
        """Return with how many partitions a topic is made."""
        entries = (_PARTITIONS.fullmatch(entry.strip()) for entry in self.kafka_partitions.split(","))
        counts: dict[str | None, str] = {entry[1]: entry[2] for entry in entries if entry}
        return int(counts.get(topic) or counts.get(None) or 1)

    def kafka_tls(self) -> ssl.SSLContext | None:
        """Read the files again, which may have been renewed; None for a plain connection.

        Raises:
            Permanent: naming the setting that is wrong.

        """
        if not self.kafka_security_protocol.endswith("SSL"):
            return None
        return client_context(self.kafka_ssl_ca, self.kafka_ssl_cert, self.kafka_ssl_key, KAFKA_FILES)


class MqttSettings(BaseSettings):
    """How to reach the MQTT broker; TLS as soon as one of its files is set."""

    mqtt_host: Host = Field(default="127.0.0.1", pattern=r"^[^\s/@]+$")
    mqtt_port: int = Field(default=1883, ge=1, le=MOST_PORT)
    mqtt_version: Literal["3.1.1", "5"] = "3.1.1"
    mqtt_traces: bool = True
    """Whether messages of MQTT 5 carry their traces as user properties."""
    mqtt_username: str = ""
    mqtt_password: SecretStr = SecretStr("")
    mqtt_tls_ca: OptionalPath = None
    mqtt_tls_cert: OptionalPath = None
    mqtt_tls_key: OptionalPath = None

    @field_validator("mqtt_password")
    @classmethod
    def _for_a_name(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        if password.get_secret_value() and not info.data.get("mqtt_username"):
            message = "it is sent with a name alone: set MQTT_USERNAME"
            raise ValueError(message)
        return password

    @model_validator(mode="after")
    def _tls_files_fit(self) -> Self:
        try:
            self.mqtt_tls()
        except Permanent as exc:
            raise ValueError(str(exc)) from exc
        return self

    def mqtt_tls(self) -> ssl.SSLContext | None:
        """Read the files again, which may have been renewed; None for a plain connection.

        Raises:
            Permanent: naming the setting that is wrong.

        """
        files = self.mqtt_tls_ca, self.mqtt_tls_cert, self.mqtt_tls_key
        if not any(files):
            return None
        return client_context(*files, ("MQTT_TLS_CA", "MQTT_TLS_CERT", "MQTT_TLS_KEY"))


S3_CONNECT_SECONDS = 3
S3_SILENT_SECONDS = 30
"""Within which an answer begins, and goes on: one that comes slowly may take as long as it takes."""


@dataclass(frozen=True, slots=True)
class S3Address:
    """Where an S3 server is, and as whom to speak to it."""

    endpoint: str
    access_key: SecretStr
    secret_key: SecretStr
    region: str
    ca: Path | None


class CentralS3Settings(BaseSettings):
    """The object store at central."""

    s3_central_endpoint: HttpAddress = "http://127.0.0.1:9000"
    s3_central_access_key: HeaderSecret = SecretStr("caravan")
    s3_central_secret_key: SecretStr = SecretStr("caravan-secret")
    s3_central_region: str = "us-east-1"
    s3_central_ca: OptionalAuthorities = None

    @property
    def central(self) -> S3Address:
        """The address as one value."""
        return S3Address(
            self.s3_central_endpoint,
            self.s3_central_access_key,
            self.s3_central_secret_key,
            self.s3_central_region,
            self.s3_central_ca,
        )


class EdgeS3Settings(BaseSettings):
    """The object store at an edge."""

    s3_edge_endpoint: HttpAddress = "http://127.0.0.1:9100"
    s3_edge_access_key: HeaderSecret = SecretStr("caravan")
    s3_edge_secret_key: SecretStr = SecretStr("caravan-secret")
    s3_edge_region: str = "us-east-1"
    s3_edge_ca: OptionalAuthorities = None

    @property
    def edge_s3(self) -> S3Address:
        """The address as one value."""
        return S3Address(
            self.s3_edge_endpoint,
            self.s3_edge_access_key,
            self.s3_edge_secret_key,
            self.s3_edge_region,
            self.s3_edge_ca,
        )


def load(cls: type[S]) -> S:
    """Read the settings, or end the process with status 2 after naming every fault; values are not shown."""
    try:
        return cls()
    except ValidationError as exc:
        for fault in exc.errors(include_url=False, include_input=False):
            name = "_".join(str(part) for part in fault["loc"][:1]).upper()
            print(f"{name or 'settings'}: {fault['msg']}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
