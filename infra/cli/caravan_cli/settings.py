"""What the commands ask of the environment."""

from __future__ import annotations

from caravan.settings import (
    CentralS3Settings,
    EdgeId,
    EdgeS3Settings,
    EdgesSettings,
    KafkaSettings,
    OptionalFile,
)


class EdgeAtCentral(CentralS3Settings, EdgesSettings):
    """Which edge, or group of edges, and where central keeps what it has."""

    edge: EdgeId = "edge1"

    @property
    def members(self) -> tuple[str, ...]:
        """The edge, or those of the group."""
        return self.edge_groups.get(self.edge, (self.edge,))

    @property
    def owner(self) -> str:
        """Whose model the edge serves: its group's, or its own."""
        return self.owner_of(self.edge)

    @property
    def sharers(self) -> tuple[str, ...]:
        """The edges that share that model; none where it is an edge's own."""
        return self.sharing.get(self.owner, ())


class OriginSettings(EdgeAtCentral):
    """Whose versions, and whose word is taken for where they come from."""

    public_key: OptionalFile = None


class WithdrawSettings(EdgeAtCentral, KafkaSettings):
    """Whose images, where they are, and where training is triggered."""


class EdgesAtCentral(CentralS3Settings, EdgesSettings):
    """Which edges, and where central keeps what it has."""


class AccountSettings(EdgeAtCentral, EdgeS3Settings):
    """Whose images, and where they are."""
