"""The parts of the stack: what runs, with which command, and how to tell that it is ready.

In a command, a value, a probe or a bucket's name, `{edge}` is the edge's name, `{edges}` all of them,
`{data}` the part's own folder, `{certs}` that of the certificates (`{engine_certs}`: of the engines' own),
`{broker.…}` how the services reach MQTT, `{keys.…}` the keys of S3 on its side, `{host}` the address on which
doors listen that others may ask, `{port}` a port of its own and `{part.port}` that of another part (where
every edge has one: the same edge's).
A port is `Port(setting, default)`, moved by 10 for each further edge, or FREE: any free one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a part: the setting that chooses it and its default, or neither where any will do."""

    setting: str = ""
    default: int = 0


FREE = Port()


@dataclass(frozen=True, slots=True)
class Part:
    """One row of the table.

    `ports` names what the part listens on, the first being its address. `after` are the parts that must be
    ready before it starts, `beside` those that it needs too but waits for by itself. `grace` is in seconds
    from SIGTERM to SIGKILL, `deadline` in seconds from start to ready. `buckets` an S3 server has from the
    start, `edge_buckets` once for each edge. `folders` are made and `files` written before each start,
    `litter` is removed after each end. A part that `inherits` gets the environment of the user beneath
    `env`, so that any setting of a service can be given to the stack. One for `tls` is there only where
    there are certificates. One that is `linked` edges reach through the link; of the checks of its `/readyz`,
    an edge `does_without` some while it is cut off.
    """

    name: str
    command: str
    probe: str
    ports: Mapping[str, Port]
    after: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    each_edge: bool = False
    buckets: tuple[str, ...] = ()
    edge_buckets: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    litter: tuple[str, ...] = ()
    inherits: bool = True
    tls: bool = False
    linked: bool = False
    does_without: tuple[str, ...] = ()
    grace: float = 10.0
    deadline: float = 120.0


# SeaweedFS. `peers=none` spares a lone master the wait for an election: ready in 2 s, also after a SIGKILL.
# Its own graceful end waits 15 s for streams that it holds to itself, and at times for ever, while all that
# it acknowledged is in its files already: hence the short grace. Without keys it takes any, but no
# stream that is signed, as AWS SDK for Java sends it. Of Go's memory some 200 MB are buffers that it
# never touches: with 352 MiB it stays below 250 MB resident and as fast, with 224 MiB it is half as fast.
S3_COMMAND = (
    "{weed} -v=0 server -dir={data} -ip=127.0.0.1 -ip.bind=127.0.0.1 -filer -s3"
    " -s3.port={s3} -s3.port.grpc={s3grpc} -filer.port={filer} -filer.port.grpc={filergrpc}"
    " -master.port={master} -master.port.grpc={mastergrpc} -volume.port={volume}"
    " -volume.port.grpc={volumegrpc} -s3.port.iceberg=0 -s3.port.lance=0 -volume.id=local"
    " -filer.localSocket=filer.sock -s3.localSocket=s3.sock -master.peers=none -master.telemetry=false"
    " -master.volumePreallocate=false -master.volumeSizeLimitMB=256 -volume.max=0 -volume.preStopSeconds=0"
)
S3_ENV = {
    "GOMEMLIMIT": "352MiB",
    "WEED_MASTER_VOLUME_GROWTH_COPY_1": "1",
    "HOME": "{data}",
    "AWS_ACCESS_KEY_ID": "{keys.user}",
    "AWS_SECRET_ACCESS_KEY": "{keys.secret}",
}
S3_INNER = dict.fromkeys(
    ("master", "mastergrpc", "volume", "volumegrpc", "filer", "filergrpc", "s3grpc"), FREE
)
S3_LITTER = tuple(
    f"/tmp/seaweedfs-{kind}-grpc-{{{kind}grpc}}.sock"  # noqa: S108  its own choice of place
    for kind in ("master", "volume", "filer", "s3")
)
S3_PROBE = "s3://{keys.in_url}@127.0.0.1:{s3}?master=127.0.0.1:{master}"

KAFKA_BUCKET, KAFKA_CLUSTER = "kafka", "caravan"
KAFKA_COMMAND = (
    "{python} -m local_stack.kafka_door 127.0.0.1:{kafka} 127.0.0.1:{behind} {tansu} broker"
    " --listener-url tcp://127.0.0.1:{behind} --advertised-listener-url tcp://127.0.0.1:{kafka}"
    f" --storage-engine s3://{KAFKA_BUCKET}/ --cluster-id {KAFKA_CLUSTER}"
)
KAFKA_ENV = {
    "AWS_ENDPOINT": "http://127.0.0.1:{s3-central.s3}",
    "AWS_ALLOW_HTTP": "true",
    "AWS_ACCESS_KEY_ID": "{keys.user}",
    "AWS_SECRET_ACCESS_KEY": "{keys.secret}",
    "AWS_REGION": "us-east-1",
}
CLEANER_ENV = {
    "HOST": "127.0.0.1",
    "PORT": "{http}",
    "S3_CENTRAL_ENDPOINT": "http://127.0.0.1:{s3-central.s3}",
}

# rumqttd keeps up to size x count bytes of each subscription in memory. A listener speaks one version of
# MQTT, and hangs up on clients of another; topics are one. It hangs up too on subscribers of 3.1.1 whom a
# message of MQTT 5 with a property should reach: so the services are clients of 5, and send none.
MQTT_CONFIG = """\
id = 0
router = {{ id = 0, max_connections = 2000, max_outgoing_packet_count = 200, \
max_segment_size = 2097152, max_segment_count = {segments} }}
[v4.tcp]
name = "tcp"
listen = "{host}:{mqtt}"
next_connection_delay_ms = 1
connections = {{ connection_timeout_ms = 60000, max_payload_size = 20971520, max_inflight_count = 1000, \
dynamic_filters = true }}
[v5.tcp]
name = "tcp5"
listen = "{host}:{mqtt5}"
next_connection_delay_ms = 1
connections = {{ connection_timeout_ms = 60000, max_payload_size = 20971520, max_inflight_count = 1000, \
dynamic_filters = true }}
[ws.websocket]
name = "websocket"
listen = "{host}:{websocket}"
next_connection_delay_ms = 1
connections = {{ connection_timeout_ms = 60000, max_payload_size = 20971520, max_inflight_count = 1000, \
dynamic_filters = true }}
"""

SERVICE_ENV = {
    "HOST": "{host}",
    "PORT": "{http}",
    "EDGES": "{edges}",
    "EDGE_GROUPS": "{edge_groups}",
    "EDGE_PRODUCTS": "{edge_products}",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:{kafka.kafka}",
    "KAFKA_GAP_SECONDS": "2",
    "S3_CENTRAL_ENDPOINT": "http://127.0.0.1:{s3-central.s3}",
}
# What large bodies took goes back to the system at once (glibc); what a photo took is used again, as to get
# its pages anew each time is a fifth of a busy shopper's CPU.
BODIES_ENV = {"MALLOC_MMAP_THRESHOLD_": "262144"}
# The same of files of models; the pieces that they come in are used again.
FILES_ENV = {"MALLOC_MMAP_THRESHOLD_": "1048576"}
EDGE_ENV = SERVICE_ENV | {
    "EDGE": "{edge}",
    "FEEDER_URL": "http://127.0.0.1:{feeder.http}",
    "MQTT_HOST": "127.0.0.1",
    "MQTT_PORT": "{broker.port}",
    "MQTT_VERSION": "{broker.version}",
    # Of what the services send, clients of 3.1.1 are to get all (see MQTT_CONFIG).
    "MQTT_TRACES": "false",
    "MQTT_TLS_CA": "{broker.ca}",
    "MQTT_TLS_CERT": "{broker.cert}",
    "MQTT_TLS_KEY": "{broker.key}",
    "S3_EDGE_ENDPOINT": "http://127.0.0.1:{s3.s3}",
    "TFSERVING_GRPC": "127.0.0.1:{model-server.grpc}",
    "TFSERVING_REST": "http://127.0.0.1:{model-server.rest}",
}
# Its threads share what they freed (glibc): few run at once.
MODEL_SERVER_ENV = {
    "MALLOC_ARENA_MAX": "1",
    "MODEL_NAME": "tea_model_b64",
    "MODEL_BASE_PATH": "s3://production/models",
    "S3_ENDPOINT": "127.0.0.1:{s3.s3}",
    "S3_USE_HTTPS": "0",
    "AWS_ACCESS_KEY_ID": "{keys.user}",
    "AWS_SECRET_ACCESS_KEY": "{keys.secret}",
    "AWS_REGION": "us-east-1",
}
TRAINING_DIRS = {"CACHE_DIR": "{data}/cache", "WORK_DIR": "{data}/work", "STATE_DIR": "{data}/state"}
READY = "http://127.0.0.1:{http}/readyz"

PARTS: tuple[Part, ...] = (
    # --- central -------------------------------------------------------------------------------------------
    Part(
        "s3-central", S3_COMMAND, S3_PROBE, {"s3": Port("S3_CENTRAL_PORT", 9000)} | S3_INNER,
        env=S3_ENV, buckets=(KAFKA_BUCKET,), edge_buckets=("{edge}-data", "{edge}-models", "{edge}-ready"),
        litter=S3_LITTER, inherits=False, linked=True, grace=1,
    ),
    Part(
        "kafka-cleaner", "{python} -m local_stack.log_cleaner", READY, {"http": FREE},
        after=("s3-central",), env=CLEANER_ENV,
    ),
    Part(
        "kafka", KAFKA_COMMAND, "kafka://127.0.0.1:{kafka}",
        {"kafka": Port("KAFKA_PORT", 9092), "behind": FREE},
        after=("s3-central",), beside=("kafka-cleaner",), env=KAFKA_ENV, inherits=False, linked=True, grace=3,
    ),
    Part(
        "feeder", "{python} -m feeder", READY, {"http": Port("FEEDER_PORT", 8081)},
        after=("s3-central", "kafka"), env=SERVICE_ENV | BODIES_ENV | {"SPOOL_DIR": "{data}"},
        linked=True,
    ),
    Part(
        "training", "{python} -m training listen", READY, {"http": Port("TRAINING_PORT", 8085)},
        after=("s3-central", "kafka"), env=SERVICE_ENV | TRAINING_DIRS, deadline=300,
    ),
    Part(
        "delivery", "{python} -m delivery", READY, {"http": Port("DELIVERY_PORT", 8082)},
        after=("kafka",), beside=("training",),
        env=SERVICE_ENV | {"EVENTLISTENER_URL": "http://127.0.0.1:{training.http}/"},
    ),
    Part(
        "hub", "{python} -m monitor", READY, {"http": Port("HUB_PORT", 8086)},
        after=("s3-central", "kafka"), env=SERVICE_ENV | {"ROUTES": "hub,dashboard"},
    ),
    # --- each edge: a shopper is of use without a model too, for it takes the images that one is made of
    Part(
        "s3", S3_COMMAND, S3_PROBE, {"s3": Port("S3_EDGE_PORT", 9100)} | S3_INNER, each_edge=True,
        env=S3_ENV, buckets=("production", "data", "valid", "unclassified"),
        litter=S3_LITTER, inherits=False, grace=1,
    ),
    Part(
        "mqtt", "{python} -m iotcore --config {data}/mqtt.toml --log-level CRITICAL", "mqtt://127.0.0.1:{mqtt}",
        {
            "mqtt": Port("MQTT_PORT", 1883),
            "mqtt5": Port("MQTT5_PORT", 1884),
            "websocket": Port("MQTT_WS_PORT", 9001),
        },
        each_edge=True,
        files={"mqtt.toml": MQTT_CONFIG}, inherits=False, grace=3,
    ),
    Part(
        "mqtt-tls",
        "{python} -m local_stack.tls --listen {host}:{mqtts} --broker 127.0.0.1:{mqtt.mqtt}"
        " --certs {certs} --metrics-port {metrics}",
        "mqtts://127.0.0.1:{mqtts}?certs={certs_in_url}",
        {"mqtts": Port("MQTT_TLS_PORT", 8883), "metrics": FREE}, each_edge=True, after=("mqtt",),
        inherits=False, tls=True,
    ),
    Part(
        "model-server",
        "{python} -m model_server --port={grpc} --rest_api_port={rest} --enable_batching=true"
        " --enable_prometheus"
        " --max_num_load_retries=2 --load_retry_interval_micros=2000000"
        " --model_config_file=s3://production/models/models.config --model_config_file_poll_wait_seconds=1",
        "model-server://{keys.in_url}@127.0.0.1:{rest}?s3=127.0.0.1:{s3.s3}&model=tea_model_b64&bucket=production",
        {"rest": Port("TFSERVING_REST_PORT", 8501), "grpc": Port("TFSERVING_GRPC_PORT", 8500)},
        each_edge=True, beside=("s3",), env=MODEL_SERVER_ENV, deadline=300,
    ),
    Part(
        "edge-manager", "{python} -m edge_manager", READY, {"http": Port("EDGE_MANAGER_PORT", 8083)},
        each_edge=True, after=("s3-central", "s3", "mqtt", "mqtt-tls"), beside=("model-server",),
        env=EDGE_ENV | FILES_ENV, does_without=("s3-central",),
    ),
    Part(
        "shopper", "{python} -m shopper", READY, {"http": Port("SHOPPER_PORT", 8080)},
        each_edge=True, after=("s3", "mqtt", "mqtt-tls", "model-server"), beside=("feeder",),
        env=EDGE_ENV | BODIES_ENV
        | {"SPOOL_DIR": "{data}", "MQTT_WS_URL": "ws://127.0.0.1:{mqtt.websocket}"},
    ),
    Part(
        "monitor", "{python} -m monitor", READY, {"http": Port("MONITOR_PORT", 8084)},
        each_edge=True, after=("kafka", "mqtt", "mqtt-tls"), env=EDGE_ENV | {"ROUTES": "bridge"},
        does_without=("kafka",),
    ),
)  # fmt: skip
