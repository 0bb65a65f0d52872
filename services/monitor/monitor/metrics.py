"""What hub and dashboard count, beside the exchanges that every route counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

HUB_IMAGES = Counter("monitor_hub_images_total", "Images in the windows that the hub has read", ["certainty"])
HUB_REPEATS = Counter("monitor_hub_repeats_total", "Messages that came again and were not counted")
HUB_CAMERAS = Gauge("monitor_hub_cameras", "Cameras that the hub knows", ["state"])
READERS = Gauge("monitor_readers", "Readers of server-sent events", ["door"])
DASHBOARD_EVENTS = Counter(
    "monitor_dashboard_events_total", "Messages that the dashboard has read", ["topic"]
)
