"""Settings of the delivery service."""

from __future__ import annotations

from caravan.settings import (
    HttpAddress,
    KafkaSettings,
    Port,
    Seconds,
    SecondsOrNone,
    ServiceSettings,
)


class DeliverySettings(ServiceSettings, KafkaSettings):
    """Where triggers come from and where runs are started."""

    port: Port = 8082
    eventlistener_url: HttpAddress = "http://127.0.0.1:8085/"
    kafka_group: str = "delivery"
    coalesce_seconds: SecondsOrNone = 0.1
    """Seconds that an edge's first trigger waits for others."""
    max_age_seconds: Seconds = 86_400
    """Seconds for which a run is requested before its trigger becomes a dead letter."""
