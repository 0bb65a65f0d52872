#!/usr/bin/env bash
# aiokafka 0.14.0: a message with neither key nor value, which Kafka's protocol allows and other clients send, is read by
# its consumer and refused by its producer, with an AssertionError before anything is sent. A consumer that copies what it
# cannot handle to a dead-letter topic therefore fails on such a message with an error that is no KafkaError, again at
# each start. Sent with an empty value instead of none, it goes through.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
from importlib.metadata import version

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

print("aiokafka", version("aiokafka"))
builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 10_000)
builder.append(0, 0, None, None, [("camera", b"till-1")])
(record,) = MemoryRecords(bytes(builder.build())).next_batch()
print("read:", record.key, record.value, record.headers)
assert (record.key, record.value) == (None, None)


async def send() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:9092")
    try:
        await producer.send("dead-letters", record.value, key=record.key, headers=record.headers)
    except AssertionError as exc:
        print("sent:", repr(exc), "which is a KafkaError:", isinstance(exc, KafkaError))
    else:
        raise SystemExit("it is sent now")
    finally:
        await producer.stop()


asyncio.run(send())
PYTHON
# Seen:
# aiokafka 0.14.0
# read: None None [('camera', b'till-1')]
# sent: AssertionError('Need at least one: key or value') which is a KafkaError: False
