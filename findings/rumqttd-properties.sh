#!/usr/bin/env bash
# iotcore 0.4.0 (rumqttd in a wheel) with paho-mqtt 2.2.0: one broker, a listener for MQTT 3.1.1 and one for MQTT 5, the same
# topics. A message of MQTT 5 reaches subscribers of both; with any property (here an expiry; a response topic, a content type
# or a topic alias do the same) it reaches those of 5 alone, and the broker hangs up on each subscriber of 3.1.1 that it is for:
# one would have guessed that it leaves the property out, for which they have no place.
set -euo pipefail
folder=$(mktemp -d)
trap 'kill "${broker:-}" 2>/dev/null || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check iotcore==0.4.0 paho-mqtt==2.2.0
read -r old new < <("$folder/venv/bin/python" -c '
import socket
ends = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(end.getsockname()[1] for end in ends))')
listener() {
    printf '[%s.tcp]\nname = "%s"\nlisten = "127.0.0.1:%s"\nnext_connection_delay_ms = 1\n' "$1" "$1" "$2"
    printf 'connections = { connection_timeout_ms = 60000, max_payload_size = 20480, max_inflight_count = 100 }\n'
}
{
    printf 'id = 0\nrouter = { id = 0, max_connections = 10, max_outgoing_packet_count = 200, '
    printf 'max_segment_size = 104857, max_segment_count = 5 }\n'
    listener v4 "$old"
    listener v5 "$new"
} >"$folder/broker.toml"
"$folder/venv/bin/python" -m iotcore --config "$folder/broker.toml" --log-level CRITICAL >/dev/null 2>&1 &
broker=$!
"$folder/venv/bin/python" - "$old" "$new" <<'PYTHON'
import queue
import socket
import sys
import time
from importlib.metadata import version

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

OLD, NEW = map(int, sys.argv[1:])


def client(protocol, port, seen):
    one = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, f"client-{port}-{len(clients)}", protocol=protocol)
    one.reconnect_delay_set(60)
    one.on_message = lambda *words: seen.put(words[2].payload.decode())
    one.on_disconnect = lambda *_: seen.put("hung up")
    one.on_subscribe = lambda *_: seen.put("subscribed")
    one.connect("127.0.0.1", port)
    one.loop_start()
    one.subscribe("pictures", 1)
    assert seen.get(timeout=10) == "subscribed"
    clients.append(one)
    return one


for port in (OLD, NEW):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)

clients = []
of_3, of_5 = queue.Queue(), queue.Queue()
client(mqtt.MQTTv311, OLD, of_3)
sender = client(mqtt.MQTTv5, NEW, of_5)
sender.publish("pictures", "plain", 1)
plain = of_3.get(timeout=10), of_5.get(timeout=10)
properties = Properties(PacketTypes.PUBLISH)
properties.MessageExpiryInterval = 60
sender.publish("pictures", "expiring", 1, properties=properties)
expiring = of_3.get(timeout=10), of_5.get(timeout=10)
print("iotcore", version("iotcore"), "paho-mqtt", version("paho-mqtt"))
print("without a property, seen by clients of 3.1.1 and of 5:", *plain, sep="  ")
print("with an expiry, seen by clients of 3.1.1 and of 5:", *expiring, sep="  ")
assert plain == ("plain", "plain"), plain
assert expiring == ("hung up", "expiring"), expiring
PYTHON
