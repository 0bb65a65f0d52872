"""Mosquitto: TLS, a password and an ACL for the services, plain doors to look in; its sessions are kept."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace

from local_stack.engines.engine import Engine
from local_stack.keys import PASSWORD, USER
from local_stack.parts import FREE, Part

# Started by root it would become another user, who cannot read the certificates.
CONFIG = """\
user root
per_listener_settings true
persistence true
persistence_location {data}/
message_size_limit 20971520
max_inflight_messages 1000
max_queued_messages 10000
listener {mqtt} 127.0.0.1
allow_anonymous true
listener {mqtt5} 127.0.0.1
allow_anonymous true
listener {websocket} 127.0.0.1
protocol websockets
allow_anonymous true
listener {mqtts} 127.0.0.1
cafile {engine_certs}/ca.pem
certfile {engine_certs}/server.pem
keyfile {engine_certs}/server.key
tls_version tlsv1.2
allow_anonymous false
password_file {data}/passwords
acl_file {data}/rights
"""
TOPICS = (
    *("monitor", "detection/#", "response/detection/#", "apparel_images", "apparel-predict"),
    *("pictures/#", "shades/#"),
)
"""What the services may use; any other topic of TENSOR_TOPICS has to be added, as it would elsewhere."""
RIGHTS = f"user {USER}\n" + "".join(f"topic readwrite {topic}\n" for topic in TOPICS)
SALT, ITERATIONS = b"a fixed salt", 101


def _password() -> str:
    """Return a line of the password file, as `mosquitto_passwd` writes it; none of it is a secret."""
    digest = hashlib.pbkdf2_hmac("sha512", PASSWORD.encode(), SALT, ITERATIONS)
    salt, key = (base64.b64encode(raw).decode() for raw in (SALT, digest))
    return f"{USER}:$7${ITERATIONS}${salt}${key}\n"


def _row(part: Part) -> Part:
    return replace(
        part,
        command="{mosquitto} -c {data}/mosquitto.conf",
        ports={**part.ports, "mqtts": FREE},
        files={"mosquitto.conf": CONFIG, "passwords": _password(), "rights": RIGHTS},
    )


MOSQUITTO = Engine(
    rows={"mqtt": _row},
    setting="MQTT_HOST",
    services={
        "MQTT_PORT": "{mqtt.mqtts}",
        "MQTT_USERNAME": USER,
        "MQTT_PASSWORD": PASSWORD,
        "MQTT_TLS_CA": "{engine_certs}/ca.pem",
        "MQTT_TLS_CERT": "",
        "MQTT_TLS_KEY": "",
    },
    programs={
        "mosquitto": ("mosquitto", "MQTT=mosquitto needs Mosquitto (Debian: apt-get install mosquitto)")
    },
    certificates=True,
)
