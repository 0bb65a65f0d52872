"""Settings of the edge-manager."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from caravan.contracts import PRODUCTION
from caravan.settings import (
    CentralS3Settings,
    EdgeId,
    EdgeS3Settings,
    HttpAddress,
    KafkaSettings,
    MqttSettings,
    OptionalFile,
    OptionalPath,
    Port,
    Seconds,
    SecondsOrNone,
    ServiceSettings,
    Share,
)
from caravan.tokens import TokenSettings


class EdgeManagerSettings(
    ServiceSettings, KafkaSettings, MqttSettings, CentralS3Settings, EdgeS3Settings, TokenSettings
):
    """Where versions come from, where they go, and what is asked of them."""

    port: Port = 8083
    edge: EdgeId = "edge1"
    tfserving_rest: HttpAddress = "http://127.0.0.1:8501"
    sink_bucket: str = Field(default=PRODUCTION, pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$")
    sink_directory: OptionalPath = None
    model_server_base_path: str = ""
    """Where the model server sees the models; empty: in the bucket, or the directory as it is here."""
    poll_seconds: float = Field(default=1.0, gt=0, le=3600)
    load_seconds: Seconds = 120.0
    keep_versions: int = Field(default=3, ge=1)
    canary: Share = 0
    """As the shopper's; above 0 the version that the shopper trusts is served beside the newest."""
    require_signature: bool = False
    public_key: OptionalFile = None
    status_seconds: SecondsOrNone = 60.0
    """Between two words to central on how things stand when nothing changes; 0 for none at all."""

    @model_validator(mode="after")
    def _has_a_sink(self) -> Self:
        if not self.sink_bucket and self.sink_directory is None:
            message = "versions have nowhere to go: set SINK_BUCKET, SINK_DIRECTORY or both"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _keeps_what_is_compared(self) -> Self:
        if self.canary and self.keep_versions == 1:
            message = "CANARY compares with the version before: set KEEP_VERSIONS to 2 or more"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _signatures_need_a_key(self) -> Self:
        if self.require_signature and self.public_key is None:
            message = "REQUIRE_SIGNATURE is on: set PUBLIC_KEY to the PEM file of the public keys"
            raise ValueError(message)
        return self
