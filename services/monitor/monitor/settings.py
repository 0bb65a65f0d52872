"""Settings of the monitor service."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from caravan.settings import (
    MOST_SECONDS,
    CentralS3Settings,
    EdgeId,
    EdgesSettings,
    KafkaSettings,
    MqttSettings,
    Port,
    ServiceSettings,
)
from caravan.tokens import TokenSettings
from monitor.hub_state import HubLimits

MIB = 2**20


def _words(value: object) -> object:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


class MonitorSettings(
    ServiceSettings, KafkaSettings, MqttSettings, CentralS3Settings, EdgesSettings, TokenSettings
):
    """Which routes run, and what they need to know."""

    port: Port = 8084
    routes: Annotated[
        tuple[Literal["bridge", "hub", "dashboard"], ...],
        NoDecode,
        BeforeValidator(_words),
        Field(min_length=1),
    ] = ("bridge",)

    edge: EdgeId = "edge1"
    kafka_group: str = ""
    """Consumer group; `monitor-<edge>` if empty."""
    max_event_bytes: int = Field(default=256 * 1024, gt=0)

    hub_history_seconds: float = Field(default=86_400, ge=60, le=MOST_SECONDS)
    hub_history_messages: int = Field(default=100_000, gt=0)
    hub_silent_windows: float = Field(default=3, gt=0)
    hub_max_cameras: int = Field(default=1000, gt=0)
    hub_max_ids: int = Field(default=200_000, gt=0)
    hub_max_image_bytes: int = Field(default=64 * MIB, ge=0)
    hub_max_classes: int = Field(default=5000, gt=0)
    hub_max_entries: int = Field(default=500_000, gt=0)

    dashboard_history_messages: int = Field(default=20_000, gt=0)

    @model_validator(mode="after")
    def _dashboard_shows_the_hub(self) -> Self:
        if "dashboard" in self.routes and "hub" not in self.routes:
            message = "ROUTES: the dashboard shows the hub's cameras, so it runs beside it: hub,dashboard"
            raise ValueError(message)
        return self

    @property
    def group(self) -> str:
        """The consumer group in use."""
        return self.kafka_group or f"monitor-{self.edge}"

    @property
    def hub_limits(self) -> HubLimits:
        """How much the hub keeps."""
        return HubLimits(
            history_seconds=self.hub_history_seconds,
            silent_windows=self.hub_silent_windows,
            max_cameras=self.hub_max_cameras,
            max_ids=self.hub_max_ids,
            max_image_bytes=self.hub_max_image_bytes,
            max_classes=self.hub_max_classes,
            max_entries=self.hub_max_entries,
        )
