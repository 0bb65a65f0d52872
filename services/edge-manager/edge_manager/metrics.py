"""What the edge-manager counts; exposed at `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SERVING = Gauge(
    "caravan_serving_version", "Newest version that the model server answers with; 0 for none", ["model"]
)
INFO = Gauge("caravan_model_info", "The version that serves; always 1", ["model", "version"])
READY = Gauge(
    "caravan_ready_version",
    "Newest version that central offers and that was not refused; 0 for none",
    ["model"],
)
COPIED_BYTES = Counter("caravan_model_copied_bytes_total", "Bytes written and verified", ["sink"])
FETCHED_BYTES = Counter(
    "caravan_model_fetched_bytes_total", "Bytes of files of versions that came from central"
)
REFUSALS = Counter("caravan_model_refusals_total", "Versions refused", ["cause"])
CENTRAL_UP = Gauge("caravan_central_up", "Whether the last look at central's store worked")
