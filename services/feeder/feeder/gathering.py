"""Images that came one by one, as batches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from prometheus_client import Gauge

from feeder.checks import Batch, Labelled

GATHERED = Gauge("caravan_feeder_gathered_images", "Images from Kafka that wait for their batch")


def as_batch(images: Sequence[Labelled]) -> Batch:
    """Return images as a batch. Its id is a hash of its content, so that a repeat has the same."""
    lines = sorted(f"{image.key} {image.sha256}\n" for image in images)
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Batch(digest, sum(image.size for image in images), tuple(images), rejected=(), ignored=0)
