"""Settings of the feeder."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from caravan import decoding, images
from caravan.settings import (
    AtOnce,
    CentralS3Settings,
    EdgesSettings,
    KafkaSettings,
    OptionalPath,
    Port,
    Seconds,
    ServiceSettings,
)

Bytes = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class FeederSettings(ServiceSettings, KafkaSettings, CentralS3Settings, EdgesSettings):
    """Which edges are fed, and what one upload, and all together, may cost."""

    port: Port = 8081
    spool_dir: OptionalPath = None
    """Directory of ZIPs while they are received; the system's temporary directory if empty."""
    max_upload_bytes: Bytes = 2 * 2**30
    max_spool_bytes: Bytes = 8 * 2**30
    min_free_bytes: Annotated[int, Field(ge=0)] = 512 * 2**20
    idle_seconds: Seconds = 60
    body_seconds: Seconds = 6 * 3600
    """Deadline of a body in seconds: enough for 2 GiB at 100 kB a second."""

    max_entries: Count = 100_000
    max_entry_bytes: Bytes = images.MAX_BYTES
    max_unpacked_bytes: Bytes = 8 * 2**30
    max_pixels: Count = images.MAX_PIXELS
    max_batch_pixels: Count = 50_000_000_000
    max_pixels_per_byte: Count = 500
    check_seconds: Seconds = 300
    decode_seconds: Seconds = decoding.SECONDS
    max_model_bytes: Bytes = 2**30

    kafka_group: str = "feeder"
    intake_count: Count = 100
    intake_seconds: Seconds = 10
    intake_bytes: Bytes = 64 * 2**20
    intake_max_age_seconds: Seconds = 3600

    uploads_at_once: AtOnce = 32
    checks_at_once: AtOnce = 2
    stores_at_once: AtOnce = 16
    store_buffer_bytes: Bytes = 64 * 2**20
    retry_seconds: Seconds = 30
