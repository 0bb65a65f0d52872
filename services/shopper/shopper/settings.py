"""Settings of the shopper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator
from pydantic_settings import NoDecode

from caravan import decoding, images
from caravan.contracts import DEFAULT_MODEL, is_model_name
from caravan.settings import (
    AtOnce,
    EdgeId,
    EdgeS3Settings,
    HttpAddress,
    KafkaSettings,
    MqttSettings,
    OptionalAuthorities,
    OptionalPath,
    Port,
    Seconds,
    ServiceSettings,
    Share,
)
from caravan.tokens import TokenSettings
from shopper import catalogue_file
from shopper.catalogue import CatalogueFault
from shopper.doors import web
from shopper.doors.topics import Topics, parse_topics
from shopper.model.inputs import Scale
from shopper.model.models import NO_OPTIONS, ModelOptions, parse_options

MIB = 2**20


def _topics(value: object) -> object:
    return parse_topics(value.replace(",", " ").split()) if isinstance(value, str) else value


ModelsOption = Annotated[Mapping[str, ModelOptions], NoDecode, BeforeValidator(parse_options)]
TensorTopics = Annotated[tuple[Topics, ...], NoDecode, BeforeValidator(_topics)]
CAMERAS = (Topics("apparel_images", "apparel-predict", "fashion_classifier"),)
"""Tensor cameras of the apparel demo; while that model is missing, their reply says so."""


class ShopperSettings(ServiceSettings, KafkaSettings, MqttSettings, EdgeS3Settings, TokenSettings):
    """What the shopper needs to know; every size is in bytes, every time in seconds."""

    port: Port = 8080
    edge: EdgeId = "edge1"

    feeder_url: HttpAddress = "http://127.0.0.1:8081"
    feeder_ca: OptionalAuthorities = None
    tfserving_grpc: str = Field(default="127.0.0.1:8500", pattern=r"^[^\s@]+$")
    tfserving_ca: OptionalAuthorities = None
    model_name: str = DEFAULT_MODEL
    models: ModelsOption = Field(default_factory=dict)
    tensor_scale: Scale = "0..1"
    tensor_topics: TensorTopics = CAMERAS
    predict_seconds: Seconds = 5.0
    score_accuracy: float = Field(default=0.6, ge=0, le=1)
    catalogue: OptionalPath = None

    max_image_bytes: int = Field(default=10 * MIB, gt=0)
    max_pixels: int = Field(default=images.MAX_PIXELS, gt=0)
    decodes_at_once: AtOnce = 2
    decode_seconds: Seconds = decoding.SECONDS
    max_memory_bytes: int = Field(default=64 * MIB, gt=0)
    mqtt_concurrency: AtOnce = 16
    mqtt_waiting: int = Field(default=256, gt=0)
    kafka_detection: bool = True
    kafka_group: str = ""
    """Consumer group; `shopper-<edge>` if empty."""
    kafka_concurrency: AtOnce = 16
    kafka_retry_seconds: Seconds = 30.0

    keep_seconds: Seconds = 2.0
    spool_dir: OptionalPath = None
    max_spool_bytes: int = Field(default=1024 * MIB, ge=0)

    max_zip_bytes: int = Field(default=64 * MIB, gt=0)
    max_zip_images: int = Field(default=2000, gt=0)
    push_seconds: Seconds = 6 * 3600.0

    mqtt_ws_url: str = Field(default="", pattern=r"^(wss?://[A-Za-z0-9.:_\[\]-]+(/[A-Za-z0-9._~/-]*)?)?$")
    web_packages: Path = Path(__file__).parents[1] / "npm" / "node_modules"

    window_seconds: float = Field(default=10.0, ge=0.1, le=86_400)
    certain_score: float = Field(default=0.8, ge=0, le=1)
    canary: Share = 0
    """Share of the images that a new version answers while it is compared with the one before; 0: none is."""
    audits_per_week: int = Field(default=60, ge=0, le=10_000)
    max_scoring_bytes: int = Field(default=256 * MIB, ge=0)

    @field_validator("model_name")
    @classmethod
    def _a_name(cls, name: str) -> str:
        if not is_model_name(name):
            message = f"{name!r} is not the name of a model"
            raise ValueError(message)
        return name

    @field_validator("catalogue")
    @classmethod
    def _a_catalogue(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                catalogue_file.read(path)
            except CatalogueFault as exc:
                raise ValueError(str(exc)) from exc
        return path

    def accuracy_of(self, model: str) -> float:
        """The score from which a model's answer counts as known."""
        own = self.options_of(model).score_accuracy
        return self.score_accuracy if own is None else own

    def options_of(self, model: str) -> ModelOptions:
        """What is said of a model; nothing for most."""
        return self.models.get(model, NO_OPTIONS)

    @property
    def group(self) -> str:
        """The consumer group in use."""
        return self.kafka_group or f"shopper-{self.edge}"

    @property
    def page(self) -> web.PageSettings:
        """What the app's pages are told."""
        return web.PageSettings(self.mqtt_ws_url, self.web_packages / "mqtt" / "dist" / "mqtt.esm.js")

    @property
    def spool(self) -> Path:
        """Folder of images that wait for the object store; each edge has its own."""
        return self.spool_dir or Path(".caravan", self.edge, "shopper-spool")
