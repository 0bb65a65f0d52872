#!/usr/bin/env bash
# aiomqtt 2.5.1 over paho-mqtt 2.2.0, MQTT 5: a broker that refuses a message says so in its PUBACK, by a reason code from 128
# on: 135 (not authorized) is what Mosquitto answers where an ACL forbids the topic, 151 is a quota. publish() of QoS 1
# returns as if the message were taken, and nothing tells the caller; who commits an offset after it loses the message.
# paho hands the code to its callback, and aiomqtt drops it there. The peer below answers as MQTT 5, 3.4, has it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiomqtt==2.5.1 paho-mqtt==2.2.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
from importlib.metadata import version

import aiomqtt

NOT_AUTHORIZED = 135


async def peer(reader, writer):
    try:
        while True:
            kind, length = await reader.readexactly(2)  # short messages alone
            packet = await reader.readexactly(length)
            if kind >> 4 == 1:  # CONNECT: taken
                writer.write(bytes([0x20, 3, 0, 0, 0]))
            elif kind >> 4 == 3:  # PUBLISH: refused
                topic = int.from_bytes(packet[:2], "big")
                writer.write(bytes([0x40, 4, *packet[2 + topic : 4 + topic], NOT_AUTHORIZED, 0]))
    except asyncio.IncompleteReadError:
        writer.close()


async def main():
    server = await asyncio.start_server(peer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client:
        try:
            returned = await client.publish("monitor", b"{}", qos=1)
        except aiomqtt.MqttError as exc:
            return f"raises {exc!r}"
    return f"returns {returned}"


print("aiomqtt", version("aiomqtt"), "paho-mqtt", version("paho-mqtt"))
seen = asyncio.run(main())
print(f"publish() of a message refused with {NOT_AUTHORIZED}: {seen}")
assert seen == "returns None", seen
PYTHON
# Printed on 2026-11-28:
#   aiomqtt 2.5.1 paho-mqtt 2.2.0
#   publish() of a message refused with 135: returns None
