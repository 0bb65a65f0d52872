"""The link between two rendered clusters: whether each routing key has both ends, and leads somewhere."""

from support.cluster import Cluster, brokers, ports, selected

BROKERS = 3
"""The link is made for so many; where fewer run, the last ones' connectors wait for them."""


def faults(central: Cluster, edge: Cluster) -> list[str]:
    """Say what of the link has one end alone, or leads nowhere."""
    ends = {connector["spec"]["routingKey"]: connector["spec"] for connector in central.of("Connector")}
    starts = {listener["spec"]["routingKey"]: listener["spec"] for listener in edge.of("Listener")}
    found = [f"Connector {key}: no edge listens for it" for key in sorted(ends.keys() - starts.keys())]
    found += [
        f"Listener {key}: central has no connector for it" for key in sorted(starts.keys() - ends.keys())
    ]
    listening = _kafka(central)
    for key, spec in ends.items():
        selector = dict(pair.split("=") for pair in spec["selector"].split(","))
        if selector.keys() != {"app"}:  # pods that Strimzi makes
            if spec["port"] not in listening:
                found.append(f"Connector {key}: Kafka has no listener on {spec['port']}")
            if not any(selector.items() <= labels.items() for labels in brokers(central, BROKERS)):
                found.append(f"Connector {key}: its selector fits no broker")
            continue
        pods = selected(central, selector)
        if not pods:
            found.append(f"Connector {key}: its selector fits no workload")
        elif spec["port"] not in ports(pods[0]):
            found.append(f"Connector {key}: its pods have no port {spec['port']}")
    there = {(spec["host"], spec["port"]) for spec in starts.values()}
    found += [
        f"{host}: an edge cannot reach this broker"
        for port in sorted(listening)
        for host in _brokers(central)
        if (host, port) not in there
    ]
    return found + _certificates(edge, listening)


def _kafka(central: Cluster) -> dict[int, set[str]]:
    """Return the listeners for edges: port → the names of the certificates beside the brokers' own."""
    return {
        listener["port"]: set(listener["configuration"].get("bootstrap", {}).get("alternativeNames", ()))
        for kafka in central.of("Kafka")
        for listener in kafka["spec"]["kafka"]["listeners"]
        if listener.get("configuration", {}).get("advertisedHostTemplate") == "kafka-{nodeId}"
    }


def _brokers(central: Cluster) -> list[str]:
    return [
        f"kafka-{number}"
        for pool in central.of("KafkaNodePool")
        for number in range(pool["spec"]["replicas"])
    ]


def _certificates(edge: Cluster, listening: dict[int, set[str]]) -> list[str]:
    found = []
    for config in edge.of("ConfigMap"):
        for server in config["data"].get("KAFKA_BOOTSTRAP_SERVERS", "").split(","):
            host, _, port = server.partition(":")
            if server and host not in listening.get(int(port), set()):
                found.append(f"KAFKA_BOOTSTRAP_SERVERS: no certificate at central has the name {host}")
    return found
