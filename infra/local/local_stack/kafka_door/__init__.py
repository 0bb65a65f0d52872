"""The door before the embedded Kafka broker: fetches wait here until something is written."""
