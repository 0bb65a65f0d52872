"""monitor: bridges an edge's events from Kafka to MQTT; at central, the hub of all edges' cameras."""
