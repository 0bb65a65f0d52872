"""Retention and compaction for the embedded Kafka broker, which has neither."""
