"""How requests come in and answers go out: HTTP, MQTT, Kafka."""
