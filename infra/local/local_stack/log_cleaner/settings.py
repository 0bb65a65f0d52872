"""How much of each partition is kept."""

from __future__ import annotations

from pydantic import Field

from caravan.settings import CentralS3Settings, ServiceSettings
from local_stack.log_cleaner.log import Retention

HOUR = 3600
MIB = 2**20


class LogCleanerSettings(ServiceSettings, CentralS3Settings):
    """The retention of a partition, as Apache Kafka's `retention.ms` and `retention.bytes`."""

    kafka_retention_hours: float = Field(default=168, gt=0)
    kafka_retention_mib: float = Field(default=1024, gt=0)
    kafka_retention_messages: int = Field(default=1_000_000, ge=1)

    @property
    def limits(self) -> Retention:
        """The limits as one value."""
        return Retention(
            self.kafka_retention_hours * HOUR,
            round(self.kafka_retention_mib * MIB),
            self.kafka_retention_messages,
        )
