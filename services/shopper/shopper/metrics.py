"""What the shopper counts, beside the exchanges that every route counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

DETECTIONS = Counter("shopper_detections_total", "Images answered", ["origin", "known"])
IMAGES_KEPT = Counter("shopper_images_kept_total", "Images made durable", ["bucket", "where"])
IMAGES_PUSHED = Counter("shopper_images_pushed_total", "Training images sent to the feeder", ["outcome"])
IMAGES_REVIEWED = Counter("shopper_images_reviewed_total", "Images that people decided", ["outcome"])
OVERLOAD = Counter("shopper_overload_total", "Messages turned away because too many wait", ["door"])
MQTT_WAITING = Gauge("shopper_mqtt_waiting", "Messages from MQTT that wait to be classified")
SPOOL_IMAGES = Gauge("shopper_spool_images", "Images that wait on disk for the object store")
SPOOL_BYTES = Gauge("shopper_spool_bytes", "Bytes that wait on disk for the object store")
CATALOGUE_PRODUCTS = Gauge("shopper_catalogue_products", "Products of the catalogue in force")
CATALOGUE_READS = Counter("shopper_catalogue_reads_total", "Changed catalogues read", ["outcome"])
MODEL_VERSION = Gauge("shopper_model_version", "Version of the model that answered last", ["model"])
SCORING_OUTBOX_MESSAGES = Gauge(
    "shopper_scoring_outbox_messages", "Windows and uncertain images that wait on disk for Kafka"
)
SCORING_OUTBOX_BYTES = Gauge("shopper_scoring_outbox_bytes", "Bytes that wait on disk for Kafka")
SCORING_DROPPED = Counter(
    "shopper_scoring_dropped_total",
    "Uncertain images that did not reach Kafka: outbox, disk or message full",
    ["reason"],
)
AUDITS = Counter("shopper_audits_total", "Audited answers, by what people said of them", ["outcome"])
DRIFTS = Counter("shopper_drifts_total", "Times that answers began to look unlike those before")
ACCURACY = Gauge(
    "shopper_accuracy", "Share of right answers in the last seven days, and its interval of 95 %", ["bound"]
)
CANARY_ANSWERS = Counter(
    "shopper_canary_answers_total", "Answers of a new version that is compared with the one before"
)
CANARY_IMAGES = Counter(
    "shopper_canary_images_total",
    "Images of which two versions were asked, by how the new one did",
    ["outcome"],
)
CANARY_PASSED_OVER = Counter(
    "shopper_canary_passed_over_total", "Images not compared, as others waited for it already"
)
CANARY_VERDICTS = Counter("shopper_canary_verdicts_total", "Comparisons of versions that ended", ["outcome"])
EVENT_LISTENERS = Gauge("shopper_event_listeners", "Pages that listen to the events")
EVENTS_MISSED = Counter("shopper_events_missed_total", "Events that a slow page did not get")
