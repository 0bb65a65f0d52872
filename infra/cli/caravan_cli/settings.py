"""What the commands ask of the environment."""

from __future__ import annotations

from caravan.settings import CentralS3Settings, EdgeId, EdgeIds, EdgeS3Settings, KafkaSettings


class EdgeAtCentral(CentralS3Settings):
    """Which edge, and where central keeps what it has."""

    edge: EdgeId = "edge1"


class WithdrawSettings(EdgeAtCentral, KafkaSettings):
    """Whose images, where they are, and where training is triggered."""


class EdgesAtCentral(CentralS3Settings):
    """Which edges, and where central keeps what it has."""

    edges: EdgeIds = ("edge1",)


class AccountSettings(EdgeAtCentral, EdgeS3Settings):
    """Whose images, and where they are."""
