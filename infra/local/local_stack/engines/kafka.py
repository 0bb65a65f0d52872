"""Apache Kafka in KRaft mode: SASL/SCRAM over TLS and ACLs for the services, a plain door to look in.

    python -m local_stack.engines.kafka JAVA JARS DATA CERTIFICATES SETUP_PORT

prepares what the server keeps, the first time and when there are other edges, and then becomes the server: so
it has one process, which a signal reaches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from caravan.contracts import EDGE_METRICS, EDGE_STATUS, TRAINING_IMAGES, TRIGGER
from local_stack.engines.engine import FOLDER, Engine
from local_stack.keys import PASSWORD, USER
from local_stack.parts import FREE, Part

JARS = FOLDER / "kafka" / "jars"
TOPICS = (TRIGGER, TRAINING_IMAGES, EDGE_METRICS, EDGE_STATUS)
"""Whatever begins like this, or with the name of an edge, is ours."""
GROUPS = ("delivery", "feeder", "monitor", "replay", "shopper")
CLUSTER = "Y2FyYXZhbi1jYXJhdmFuMQ"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listener.security.protocol.map=PLAIN:PLAINTEXT,SECURE:SASL_SSL,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAIN
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.dirs={data}/log
message.max.bytes=21037056
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
"""
SETUP = PROPERTIES + "listeners=PLAIN://127.0.0.1:{setup},CONTROLLER://127.0.0.1:{controller}\n"
SERVER = PROPERTIES + (
    "listeners=PLAIN://127.0.0.1:{kafka},SECURE://127.0.0.1:{secure},CONTROLLER://127.0.0.1:{controller}\n"
    "sasl.enabled.mechanisms=SCRAM-SHA-512\n"
    "listener.name.secure.scram-sha-512.sasl.jaas.config="
    "org.apache.kafka.common.security.scram.ScramLoginModule required;\n"
    "listener.name.secure.ssl.keystore.type=PEM\n"
    "listener.name.secure.ssl.keystore.location={data}/keystore.pem\n"
)
JVM = ("-Xmx384m", "-XX:TieredStopAtLevel=1", "-Dlog4j2.level=WARN")
SECONDS = 90.0


def _row(part: Part) -> Part:
    return replace(
        part,
        command="{python} -m local_stack.engines.kafka {java} {jars} {data} {engine_certs} {setup}",
        ports={**part.ports, "secure": FREE, "controller": FREE, "setup": FREE},
        after=(),
        beside=(),
        env={"EDGES": "{edges}"},
        files={"setup.properties": SETUP, "server.properties": SERVER},
        grace=20,
    )


APACHE = Engine(
    rows={"kafka": _row},
    setting="KAFKA_BOOTSTRAP_SERVERS",
    services={
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:{kafka.secure}",
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
        "KAFKA_SASL_USERNAME": USER,
        "KAFKA_SASL_PASSWORD": PASSWORD,
        "KAFKA_SSL_CA": "{engine_certs}/ca.pem",
        "KAFKA_IDEMPOTENCE": "true",
        "KAFKA_GAP_SECONDS": "0",
    },
    programs={
        "java": (
            "java",
            "KAFKA=apache needs Java 17 or later (Debian: apt-get install default-jre-headless)",
        ),
        "jars": (JARS, "KAFKA=apache needs its packages: make engines"),
    },
    certificates=True,
    without=("kafka-cleaner",),  # it has a log cleaner of its own
)


def main(java: str, jars: str, folder: str, certificates: str, port: str) -> None:
    """Format the log and grant the rights, unless that is done; then become the server."""
    run = (java, *JVM, "-cp", f"{jars}/*")
    data, certs, edges = Path(folder), Path(certificates), os.environ["EDGES"]
    keystore = data / "keystore.pem"
    keystore.touch(mode=0o600)
    keystore.write_bytes((certs / "server.key").read_bytes() + (certs / "server.pem").read_bytes())
    granted = data / "granted"
    if not granted.exists() or granted.read_text() != edges:
        setup = str(data / "setup.properties")
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        formatting = ("format", "-t", CLUSTER, "-c", setup, "--add-scram", scram, "--ignore-formatted")
        subprocess.run([*run, "kafka.tools.StorageTool", *formatting], check=True)
        _grant(run, setup, f"127.0.0.1:{port}", edges.split())
        granted.write_text(edges)
    os.execv(java, [*run, "kafka.Kafka", str(data / "server.properties")])


def _grant(run: Sequence[str], setup: str, address: str, edges: Sequence[str]) -> None:
    """Let the services do all they want with their own topics and groups, and nothing with others'."""
    topics = [word for name in (*TOPICS, *edges) for word in ("--topic", name)]
    groups = [word for name in GROUPS for word in ("--group", name)]
    rights = ("--add", "--allow-principal", f"User:{USER}", "--operation", "All")
    running = subprocess.Popen([*run, "kafka.Kafka", setup])
    try:
        subprocess.run(
            [
                *(*run, "org.apache.kafka.tools.AclCommand", "--bootstrap-server", address, *rights),
                *("--resource-pattern-type", "prefixed", *topics, *groups),
            ],
            check=True,
            timeout=SECONDS,
        )
    finally:
        running.terminate()
        running.wait(SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
