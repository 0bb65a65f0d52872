"""Kafka as the services reach it: settings, dead letters, and what a broker sees of the client."""

import asyncio
import hashlib
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from gzip import BadGzipFile
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import CorruptRecordException, KafkaConnectionError
from prometheus_client import REGISTRY
from pydantic import SecretStr
from structlog.testing import capture_logs

from caravan import dead_letters, replay
from caravan.dead_letters import send_dead_letter
from caravan.errors import BadInput, Permanent, Transient
from caravan.gaps import Gaps, Shortened
from caravan.kafka import Consumer, Producer, header
from caravan.settings import KafkaSettings, load
from caravan.testing import kafka as testing

# --- messages out of turn -------------------------------------------------------------------------

PARTITION = TopicPartition("edge1", 0)


def messages(*offsets: int) -> list[ConsumerRecord]:
    return [testing.record(b"", topic="edge1", offset=offset) for offset in offsets]


def test_messages_are_taken_up_to_an_offset_that_is_missing_and_read_again_from_there() -> None:
    gaps = Gaps(2, lambda: 0)
    assert gaps.taken(PARTITION, messages(5, 6, 8), 5) == (messages(5, 6), 7)
    assert gaps.taken(PARTITION, messages(8, 9), 7) == ([], 7)
    assert gaps.taken(PARTITION, messages(7, 8, 9), 7) == (messages(7, 8, 9), None)


def test_what_does_not_come_in_time_is_not_waited_for_any_more() -> None:
    now = 0.0
    gaps = Gaps(2, lambda: now)
    assert gaps.taken(PARTITION, messages(8, 10), 7) == ([], 7)
    now = 2.0
    assert gaps.taken(PARTITION, messages(8, 10), 7) == (messages(8), 9), "another gap, waited for anew"
    now = 4.0
    assert gaps.taken(PARTITION, messages(10), 9) == (messages(10), None)


def test_a_message_that_comes_twice_is_no_gap() -> None:
    assert Gaps(2, lambda: 0).taken(PARTITION, messages(5, 6, 5, 6, 7), 5) == (messages(5, 6, 5, 6, 7), None)


def test_a_log_that_has_ended_before_its_reader_for_a_while_was_made_again() -> None:
    now = 0.0
    shortened = Shortened(lambda: now)
    assert not shortened.is_so(PARTITION, 3, 5)
    now = 4.0
    assert not shortened.is_so(PARTITION, 5, 5), "the broker was late"
    assert not shortened.is_so(PARTITION, 3, 5)
    now = 9.0
    assert shortened.is_so(PARTITION, 3, 5)
    assert not shortened.is_so(PARTITION, 3, 0)


# --- dead letters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "begins", "told"),
    [("g", 12, [(3, 11)]), ("g", 0, []), (None, 12, [])],
    ids=["retention", "compaction", "of no group"],
)
async def test_messages_that_a_topic_kept_no_longer_are_told_and_those_that_follow_are_read(
    group: str | None, begins: int, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = TopicPartition("t", 0)

    async def answer(value: Any) -> Any:
        return value

    async def committed(*_: Any) -> int:
        assert group is not None, "aiokafka raises for a reader without a group"
        return 3

    monkeypatch.setattr(AIOKafkaConsumer, "assignment", lambda _: {there})
    monkeypatch.setattr(AIOKafkaConsumer, "highwater", lambda *_: None)
    monkeypatch.setattr(AIOKafkaConsumer, "position", lambda *_: answer(3))
    monkeypatch.setattr(AIOKafkaConsumer, "committed", committed)
    monkeypatch.setattr(AIOKafkaConsumer, "beginning_offsets", lambda *_: answer({there: begins}))
    monkeypatch.setattr(AIOKafkaConsumer, "getmany", lambda *_, **__: answer({there: messages(12, 13)}))
    client = Consumer(KafkaSettings(), "t", group_id=group)
    with capture_logs() as logs:
        found = await client.getmany(timeout_ms=10)
    await client.stop()
    assert [message.offset for message in found[there]] == [12, 13]
    assert [(line["first"], line["last"]) for line in logs] == told


def record(
    value: bytes | None, *headers: tuple[str, bytes | None], key: bytes | None = b"k"
) -> ConsumerRecord:
    return testing.record(value, key=key, headers=headers, topic="edge1-images", partition=3, offset=42)


def taking(most: int) -> testing.Kafka:
    """Return a broker that refuses what is larger than it takes."""

    def is_larger(sent: testing.Sent) -> bool:
        around = sum(len(name) + len(text or b"") for name, text in sent.headers)
        return len(sent.value or b"") + len(sent.key or b"") + around > most

    broker = testing.Kafka()
    broker.fail(Permanent("more than Kafka takes here"), where=is_larger)
    return broker


HEADERS = (("trace", b"\xff\x00"), ("trace", b"again"), ("nothing", None))


async def put(
    broker: testing.Kafka, message: ConsumerRecord, reason: str = "not an image"
) -> dict[str, bytes | None]:
    """Put a message aside; return the one letter's own headers."""
    await send_dead_letter(broker, "detect-kafka", message, reason, "not-an-image")  # type: ignore[arg-type] # a fake
    (letter,) = broker.to("edge1-images-dead-letter")
    return {name: text for name, text in letter.headers if name.startswith("dead-letter-")}


async def test_a_dead_letter_is_the_message_as_it_came_with_the_reason() -> None:
    broker = taking(10_000)
    own = await put(broker, record(b"value", *HEADERS, ("dead-letter-reason", b"of an earlier time")))
    assert own == {
        "dead-letter-route": b"detect-kafka",
        "dead-letter-reason": b"not an image",
        "dead-letter-code": b"not-an-image",
        "dead-letter-partition": b"3",
        "dead-letter-offset": b"42",
    }
    (letter,) = broker.sent
    assert (letter.value, letter.key, tuple(letter.headers[:3])) == (b"value", b"k", HEADERS)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (CorruptRecordException(), Permanent),
        (BadGzipFile("Not a gzipped file"), Permanent),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), Permanent),
        (KafkaConnectionError(), Transient),
    ],
    ids=["damaged", "not unpacked", "odd header", "broker away"],
)
async def test_a_letter_whose_message_is_damaged_is_left_and_one_whose_broker_is_away_waits(
    fault: Exception, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def yes(*_: Any) -> bool:
        return True

    async def fail(*_: Any, **__: Any) -> None:
        raise fault

    monkeypatch.setattr(replay, "_has_partition", yes)
    monkeypatch.setattr(AIOKafkaConsumer, "start", yes)
    monkeypatch.setattr(AIOKafkaConsumer, "seek", lambda *_: None)
    monkeypatch.setattr(AIOKafkaConsumer, "getmany", fail)
    facts = {"sha256": "0" * 64, "partition": "0", "offset": "5"}
    headers = [(f"dead-letter-{name}", text.encode()) for name, text in facts.items()]
    with pytest.raises(error):
        await replay._whole(KafkaSettings(), "some", record(None, *headers))


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


@pytest.mark.parametrize("size", [9_900, 10_000, 50_000])
async def test_of_a_message_that_is_too_large_to_be_kept_size_digest_and_place_are_kept(size: int) -> None:
    broker = taking(10_000)
    names = "caravan_dead_letters_without_value_total", "caravan_dead_letters_total"
    before = (
        count(names[0], route="detect-kafka"),
        count(names[1], route="detect-kafka", reason="not-an-image"),
    )
    own = await put(broker, record(bytes(size), *HEADERS))
    after = (
        count(names[0], route="detect-kafka"),
        count(names[1], route="detect-kafka", reason="not-an-image"),
    )
    assert after == (before[0] + 1, before[1] + 1)
    (letter,) = broker.sent
    assert (letter.value, letter.key, tuple(letter.headers[:3])) == (None, b"k", HEADERS)
    assert own["dead-letter-size"] == str(size).encode()
    assert own["dead-letter-sha256"] == hashlib.sha256(bytes(size)).hexdigest().encode()
    assert (own["dead-letter-partition"], own["dead-letter-offset"]) == (b"3", b"42")


@pytest.mark.parametrize(
    "message",
    [record(b"v", ("h", bytes(50_000))), record(b"v", key=bytes(50_000)), record(None, key=bytes(50_000))],
)
async def test_key_and_headers_that_are_too_large_themselves_are_left_out(message: ConsumerRecord) -> None:
    broker = taking(10_000)
    own = await put(broker, message, reason="é" * 5000)
    (letter,) = broker.sent
    assert (letter.value, letter.key) == (None, None)
    assert {name for name, _ in letter.headers} == set(own)


async def test_while_kafka_is_away_nothing_counts_as_a_dead_letter() -> None:
    broker = testing.Kafka()
    broker.fail(Transient("away"))
    labels = {"route": "detect-kafka", "reason": "not-an-image"}
    before = count("caravan_dead_letters_total", **labels)
    with pytest.raises(Transient):
        await send_dead_letter(broker, "detect-kafka", record(b""), "why", "not-an-image")  # type: ignore[arg-type]
    assert count("caravan_dead_letters_total", **labels) == before


def test_of_a_header_that_came_twice_the_last_counts_and_an_empty_one_is_none() -> None:
    message = record(b"", ("class", b"a"), ("class", b" b "), ("label", b"c"), ("empty", b""), ("null", None))
    assert header(message, "class", "label") == "b"
    assert header(message, "empty", "null", "label") == "c"
    assert header(message, "none") == ""
    with pytest.raises(BadInput):
        header(record(b"", ("class", b"\xff")), "class")


# --- settings -----------------------------------------------------------------------------------


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def say(**variables: str) -> str:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit):
            load(KafkaSettings)
        return capsys.readouterr().err

    return say


def test_every_fault_is_named_at_once(said: Callable[..., str], tmp_path: Path) -> None:
    text = said(
        KAFKA_BOOTSTRAP_SERVERS="one:9092,,two:x",
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SASL_MECHANISM="NONE",
        KAFKA_SSL_CA=str(tmp_path / "missing"),
        KAFKA_MAX_MESSAGE_BYTES="0",
    )
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    assert set(lines) == {
        "KAFKA_BOOTSTRAP_SERVERS",
        "KAFKA_SASL_MECHANISM",
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
        "KAFKA_SSL_CA",
        "KAFKA_MAX_MESSAGE_BYTES",
    }
    assert "'', 'two:x'" in lines["KAFKA_BOOTSTRAP_SERVERS"]


def test_what_the_protocol_does_not_use_is_a_fault(said: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "file.pem"
    file.touch()
    text = said(KAFKA_SASL_USERNAME="me", KAFKA_SASL_PASSWORD="hunter2", KAFKA_SSL_CERT=str(file))
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "KAFKA_SASL_USERNAME",
        "KAFKA_SASL_PASSWORD",
        "KAFKA_SSL_CERT",
    ]
    assert "hunter2" not in text


@pytest.mark.parametrize("servers", ["kafka", "a:9092,b:9093", " a:1 , [::1]:9092", "10.0.0.1:9092"])
def test_servers_are_named_as_clients_of_kafka_name_them(servers: str) -> None:
    assert KafkaSettings(kafka_bootstrap_servers=servers).kafka_bootstrap_servers == servers


@pytest.mark.parametrize("servers", ["", ",", "a:1,", "a:b", "http://a:1", "a b:1"])
def test_what_is_no_server_is_refused(servers: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        KafkaSettings(kafka_bootstrap_servers=servers)


@pytest.mark.parametrize(
    ("text", "trigger", "others"), [("1", 1, 1), ("4", 4, 4), ("trigger=2", 2, 1), ("trigger=2, 8", 2, 8)]
)
def test_topics_are_made_with_as_many_partitions_as_is_said(text: str, trigger: int, others: int) -> None:
    settings = KafkaSettings(kafka_partitions=text)
    assert (settings.partitions("trigger"), settings.partitions("edge1-images")) == (trigger, others)


@pytest.mark.parametrize("text", ["", "0", "-1", "trigger=", "trigger=0", "=2", "a b=2", "2,", "99999"])
def test_what_is_no_number_of_partitions_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="topic=number"):
        KafkaSettings(kafka_partitions=text)


# --- TLS and SASL, as a broker sees them --------------------------------------------------------


class Authority:
    """An authority, with files as an operator has them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._ca = trustme.CA()
        self.server = self._ca.issue_cert("127.0.0.1")
        client = self._ca.issue_cert("shopper@edge1")
        self.ca, self.cert, self.key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        self._ca.cert_pem.write_to_path(self.ca)
        client.cert_chain_pems[0].write_to_path(self.cert)
        client.private_key_pem.write_to_path(self.key)

    def trusted_by(self, context: ssl.SSLContext) -> None:
        self._ca.configure_trust(context)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


class Listener:
    """A broker's door that notes who knocks, and speaks as much Kafka as a login takes."""

    def __init__(self) -> None:
        self.subjects: list[Any] = []
        self.requests: list[int] = []
        self.said: list[bytes] = []
        self.knocked = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tls = writer.get_extra_info("ssl_object")
        self.subjects.append((tls.getpeercert() or {}).get("subjectAltName"))
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                body = await reader.readexactly(size)
                kind, _, correlation, client = struct.unpack_from(">hhih", body)
                rest = body[10 + max(client, 0) :]
                self.requests.append(kind)
                if kind == API_VERSIONS:
                    apis = [
                        (METADATA, 0, 1),
                        (SASL_HANDSHAKE, 0, 1),
                        (API_VERSIONS, 0, 0),
                        (SASL_AUTHENTICATE, 0, 0),
                    ]
                    answer = struct.pack(">hi", 0, len(apis)) + b"".join(
                        struct.pack(">hhh", *api) for api in apis
                    )
                elif kind == SASL_HANDSHAKE:
                    self.said.append(rest[2:])
                    answer = struct.pack(">hi", 0, 1) + rest
                else:
                    self.said.append(rest[4:])
                    self.knocked.set()
                    return
                writer.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            self.knocked.set()
            writer.close()


METADATA, SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE = 3, 17, 18, 36


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None) -> AsyncIterator[tuple[Listener, str]]:
    listener = Listener()
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield listener, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def door(authority: Authority) -> ssl.SSLContext:
    """A context that asks for a certificate of this authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.server.configure_cert(context)
    authority.trusted_by(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def knock(listener: Listener, **settings: Any) -> None:
    """Send as a service does, which fails here; return when the listener has seen what there is to see."""
    async with Producer(KafkaSettings(**settings)) as producer, asyncio.timeout(20):
        with pytest.raises(Transient):
            await producer.send("trigger", b"edge1")
        await listener.knocked.wait()


class Silenced:
    """A broker that knows no topics; what connections there are can be made to lead nowhere."""

    def __init__(self) -> None:
        self.connections = 0
        self.silent = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number, (_, port) = self.connections, writer.get_extra_info("sockname")
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                kind, _, correlation = struct.unpack_from(">hhi", await reader.readexactly(size))
                if kind == API_VERSIONS:
                    answer = struct.pack(">hihhhhhh", 0, 2, METADATA, 0, 1, API_VERSIONS, 0, 0)
                else:  # one broker, itself, without a rack; it is the controller; no topics
                    answer = struct.pack(">iih9sihii", 1, 0, 9, b"127.0.0.1", port, -1, 0, 0)
                if number > self.silent:
                    writer.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)
        except asyncio.IncompleteReadError:
            writer.close()


async def test_a_connection_that_was_once_not_answered_on_is_not_asked_again() -> None:
    broker = Silenced()
    async with await asyncio.start_server(broker.serve, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with Producer(KafkaSettings(kafka_bootstrap_servers=address)) as producer:
            await producer.ping()
            before = broker.connections
            await producer.ping()
            assert broker.connections == before
            broker.silent = before
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await producer.ping()
            async with asyncio.timeout(5):
                await producer.ping()


async def test_over_mutual_tls_the_client_shows_its_certificate(authority: Authority) -> None:
    async with listening(door(authority)) as (listener, address):
        await knock(
            listener,
            kafka_bootstrap_servers=address,
            kafka_security_protocol="SSL",
            kafka_ssl_ca=authority.ca,
            kafka_ssl_cert=authority.cert,
            kafka_ssl_key=authority.key,
        )
    assert listener.subjects == [(("email", "shopper@edge1"),)]
    assert listener.requests != []


async def test_a_server_of_another_authority_is_told_nothing(authority: Authority, tmp_path: Path) -> None:
    async with listening(door(authority)) as (listener, address):
        settings = KafkaSettings(
            kafka_bootstrap_servers=address,
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_username="me",
            kafka_sasl_password=SecretStr("hunter2"),
            kafka_ssl_ca=Authority(tmp_path / "theirs").ca,
            kafka_ssl_cert=authority.cert,
            kafka_ssl_key=authority.key,
        )
        async with Producer(settings) as producer:
            with pytest.raises(Transient):
                await producer.send("trigger", b"edge1")
    assert listener.requests == []


@pytest.mark.parametrize(
    ("mechanism", "first"),
    [
        ("PLAIN", b"\0edge1\0hunter2"),
        ("SCRAM-SHA-256", b"n,,n=edge1,r="),
        ("SCRAM-SHA-512", b"n,,n=edge1,r="),
    ],
)
async def test_a_login_is_tried_with_the_mechanism_and_the_user_that_are_set(
    authority: Authority, mechanism: str, first: bytes
) -> None:
    context = door(authority)
    context.verify_mode = ssl.CERT_NONE
    async with listening(context) as (listener, address):
        await knock(
            listener,
            kafka_bootstrap_servers=f"127.0.0.1:1,{address}",
            kafka_security_protocol="SASL_SSL",
            kafka_sasl_mechanism=mechanism,
            kafka_sasl_username="edge1",
            kafka_sasl_password="hunter2",
            kafka_ssl_ca=authority.ca,
        )
    handshake, login, *_ = listener.said
    assert handshake == mechanism.encode()
    assert login.startswith(first) if mechanism.startswith("SCRAM") else login.endswith(first)
    if mechanism.startswith("SCRAM"):
        assert b"hunter2" not in login


def parked(topic: str, /, **facts: str) -> ConsumerRecord:
    headers = tuple((f"caravan-parked-{name}", text.encode()) for name, text in facts.items())
    return testing.record(b"v", key=b"k", headers=headers, topic=topic, partition=3, offset=7)


@pytest.mark.parametrize(
    ("record", "place"),
    [
        (parked("trigger"), ("trigger", 3, 7)),
        (parked("trigger", partition="1", offset="5"), ("trigger", 1, 5)),
        (
            parked("training-images-retry", topic="no such", partition="1", offset="5"),
            ("training-images", 1, 5),
        ),
        (parked("training-images-retry"), ("training-images", 3, 7)),
        (parked("shop-retry"), ("shop-retry", 3, 7)),
        (parked("trigger", topic="training images", offset="9" * 400, partition="x"), ("trigger", 0, 0)),
    ],
)
def test_where_a_parked_message_was_first_is_told_by_no_header_that_anyone_may_send(
    record: ConsumerRecord, place: tuple[str, int, int]
) -> None:
    assert dead_letters.first_place(record) == place


async def test_a_message_parked_by_a_clock_that_was_ahead_does_not_wait_until_then() -> None:
    broker = testing.Kafka()
    ahead = parked("trigger", since=str(int(time.time()) + 10**6))
    assert dead_letters.parked_for(ahead) == 0
    await dead_letters.park(broker, "trigger", ahead)  # type: ignore[arg-type] # a fake
    assert int(dict(broker.sent[0].headers)["caravan-parked-since"]) <= time.time()
