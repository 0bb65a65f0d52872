"""Settings: one frozen object per service, read from the environment, every fault named at once."""

from __future__ import annotations

import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from caravan.contracts import is_edge_id
from caravan.errors import Permanent
from caravan.tls import client_context

S = TypeVar("S", bound=BaseSettings)


def _edge(value: str) -> str:
    if not is_edge_id(value):
        message = f"{value!r} is not an edge id: a DNS label of a-z, 0-9 and inner hyphens"
        raise ValueError(message)
    return value


def _words(value: object) -> object:
    if isinstance(value, str):
        return tuple(_edge(word) for word in value.replace(",", " ").split())
    return value


EdgeId = Annotated[str, BeforeValidator(_edge)]
EdgeIds = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words), Field(min_length=1)]
Port = Annotated[int, Field(ge=0, le=65535)]
OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A path that an empty variable leaves unset."""


class ServiceSettings(BaseSettings):
    """What every service has.

    Loopback is the default; in a container `HOST` is 0.0.0.0.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    host: str = "127.0.0.1"
    port: Port = 0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["console", "json"] = "console"


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
    kafka_max_message_bytes: int = Field(default=20 * 2**20, gt=0)
    kafka_create_topics: bool = True
    kafka_replication: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _sasl_needs_a_user(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not self.kafka_sasl_username:
            message = "KAFKA_SECURITY_PROTOCOL asks for SASL: set KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
            raise ValueError(message)
        return self


class MqttSettings(BaseSettings):
    """How to reach the MQTT broker; TLS as soon as one of its files is set."""

    mqtt_host: str = "127.0.0.1"
    mqtt_port: Port = 1883
    mqtt_username: str = ""
    mqtt_password: SecretStr = SecretStr("")
    mqtt_tls_ca: OptionalPath = None
    mqtt_tls_cert: OptionalPath = None
    mqtt_tls_key: OptionalPath = None

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

    s3_central_endpoint: str = "http://127.0.0.1:9000"
    s3_central_access_key: SecretStr = SecretStr("caravan")
    s3_central_secret_key: SecretStr = SecretStr("caravan-secret")
    s3_central_region: str = "us-east-1"
    s3_central_ca: OptionalPath = None

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

    s3_edge_endpoint: str = "http://127.0.0.1:9100"
    s3_edge_access_key: SecretStr = SecretStr("caravan")
    s3_edge_secret_key: SecretStr = SecretStr("caravan-secret")
    s3_edge_region: str = "us-east-1"
    s3_edge_ca: OptionalPath = None

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
