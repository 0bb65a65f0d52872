"""Settings of the delivery service."""

from __future__ import annotations

from pydantic import Field

from caravan.settings import HttpAddress, KafkaSettings, Port, ServiceSettings


class DeliverySettings(ServiceSettings, KafkaSettings):
    """Where triggers come from and where runs are started."""

    port: Port = 8082
    eventlistener_url: HttpAddress = "http://127.0.0.1:8085/"
    kafka_group: str = "delivery"
    coalesce_seconds: float = Field(default=0.1, ge=0)
    """Seconds that an edge's first trigger waits for others."""
    max_age_seconds: float = Field(default=86_400, gt=0)
    """Seconds for which a run is requested before its trigger becomes a dead letter."""
