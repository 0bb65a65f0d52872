"""The log cleaner: what it removes and merges, and that nothing else changes."""

import json
import time
from collections.abc import Sequence

import obstore
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from obstore.store import MemoryStore

from caravan.errors import Transient
from local_stack.log_cleaner.cleaner import LogCleaner
from local_stack.log_cleaner.log import (
    MERGE_FROM,
    MERGED_BYTES,
    SETTLED_SECONDS,
    SMALL_BYTES,
    Retention,
    Segment,
    expendable,
    mergeable,
)
from local_stack.log_cleaner.records import ApartError, merge

NOW = 1_000_000.0
DAY = 86400.0
ALL = Retention(7 * DAY, 2**40, 10**9)
ROOT = "clusters/caravan"

Message = tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]


def segments(count: int, *, messages: int = 1, size: int = 100, age: float = 60.0) -> list[Segment]:
    return [Segment(number * messages, size, NOW - age) for number in range(count)]


def record_batch(*messages: Message, codec: int = 0) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 2**20)
    for number, (timestamp, key, value, headers) in enumerate(messages):
        builder.append(number, timestamp, key, value, headers)
    return bytes(builder.build())


def one(number: int) -> Message:
    return 1000 + number, b"key", b"value %d" % number, [("header", b"%d" % number), ("none", None)]


def messages_of(raw: bytes) -> list[Message]:
    return [
        (record.timestamp, record.key, record.value, record.headers) for record in DefaultRecordBatch(raw)
    ]


# --- retention ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (ALL, 20),
        (Retention(30, 2**40, 10**9), 1),
        (Retention(DAY, 1000, 10**9), 10),
        (Retention(DAY, 2**40, 55), 6),
        (Retention(DAY, 2**40, 10**9, objects=7), 7),
    ],
    ids=["none", "age", "bytes", "messages", "objects"],
)
def test_the_oldest_objects_go_as_far_as_a_limit_says_and_the_newest_stays(
    limits: Retention, kept: int
) -> None:
    log = segments(20, messages=10)
    assert len(log) - expendable(log, 200, limits, NOW) == kept


def test_what_a_group_has_not_read_goes_only_by_its_age() -> None:
    log = segments(20, messages=10)
    assert expendable(log, 200, Retention(DAY, 2**40, 10), NOW, unread=45) == 4
    assert expendable(log, 200, Retention(30, 2**40, 10), NOW, unread=45) == 19


def test_a_log_is_cut_where_the_broker_finds_its_earliest_offset() -> None:
    """The broker takes it from the object that was written first, which a merged one is not."""
    log = [
        Segment(0, 9, 10.0),
        Segment(1, 9, 20.0),
        Segment(2, 9, 90.0),
        Segment(8, 9, 30.0),
        Segment(9, 9, 95.0),
    ]
    for messages, cut in ((9, 1), (8, 1), (2, 3), (1, 4)):
        assert expendable(log, 10, Retention(DAY, 2**40, messages), 100.0) == cut
    assert expendable(log, 10, Retention(75.0, 2**40, 100), 100.0) == 1, (
        "an object's messages are as old as what follows"
    )


def test_an_empty_log_has_nothing_to_remove() -> None:
    assert expendable([], 0, ALL, NOW) == 0


# --- merging --------------------------------------------------------------------------------------


def ranges(log: Sequence[Segment], apart: frozenset[int] = frozenset()) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in mergeable(log, NOW, apart)]


def test_small_objects_are_merged_once_there_are_enough_but_the_first_and_the_last() -> None:
    assert ranges(segments(MERGE_FROM + 1)) == []
    assert ranges(segments(MERGE_FROM + 2)) == [(1, MERGE_FROM + 1)]


def test_what_was_just_written_is_left_alone() -> None:
    assert ranges(segments(2 * MERGE_FROM, age=SETTLED_SECONDS - 1)) == []


def test_merged_objects_stay_within_what_a_consumer_asks_for() -> None:
    log = segments(400, size=50_000)
    parts = ranges(log)
    assert all(sum(segment.size for segment in log[start:stop]) <= MERGED_BYTES for start, stop in parts)
    assert parts[0][0] == 1
    assert parts[-1][1] == len(log) - 1
    assert [stop for _, stop in parts[:-1]] == [start for start, _ in parts[1:]]


def test_large_objects_and_those_that_cannot_be_merged_stay_as_they_are() -> None:
    log = segments(2 * MERGE_FROM)
    log[50] = Segment(50, SMALL_BYTES, NOW - 60)
    assert ranges(log, frozenset({99})) == [(1, 50), (51, 99), (100, 2 * MERGE_FROM - 1)]


def test_a_merged_batch_has_the_same_messages() -> None:
    singles = [(number, record_batch(one(number))) for number in range(7, 12)]
    pairs = [(12, record_batch(one(12), (5, None, None, [])))]
    merged = merge([*singles, *pairs], 14)
    batch = DefaultRecordBatch(merged)
    assert batch.validate_crc()
    assert [record.offset - batch.base_offset for record in batch] == list(range(7))
    assert messages_of(merged) == [*map(one, range(7, 13)), (5, None, None, [])]


def test_messages_far_apart_in_time_are_all_merged_though_they_grow() -> None:
    first = one(0)
    empty: Message = (2**60, None, None, [])
    raw = merge([(0, record_batch(first)), (1, record_batch(*[empty] * 499))], 500)
    assert messages_of(raw) == [first, *[empty] * 499]


def test_a_merge_that_was_cut_off_is_gone_on_with() -> None:
    whole = record_batch(*map(one, range(4)))
    left_over = [(number, record_batch(one(number))) for number in range(1, 4)]
    assert messages_of(merge([(0, whole), *left_over, (4, record_batch(one(4)))], 5)) == list(
        map(one, range(5))
    )


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ((1, record_batch(one(1), codec=1)), "compressed"),
        ((2, record_batch(one(2))), "does not reach"),
        ((1, record_batch(one(1))[:-3]), "damaged"),
    ],
    ids=["compressed", "gap", "cut short"],
)
def test_what_cannot_be_merged_is_named(second: tuple[int, bytes], reason: str) -> None:
    with pytest.raises(ApartError, match=reason):
        merge([(0, record_batch(one(0))), second], second[0] + 1)


# --- the loop -------------------------------------------------------------------------------------


class Bucket:
    """The broker's bucket, as the broker writes it."""

    def __init__(self, messages: int, topic: str = "edge1") -> None:
        self.store = MemoryStore()
        self.topic = topic
        self.path = f"{ROOT}/topics/{topic}/partitions/0000000000"
        self.put(f"{ROOT}/meta.json", {"topics": {topic: {"id": "u", "topic": {"num_partitions": 1}}}})
        self.end = 0
        self.produce(messages)

    def put(self, key: str, content: object) -> None:
        obstore.put(self.store, key, json.dumps(content).encode())

    def produce(self, messages: int) -> None:
        for number in range(self.end, self.end + messages):
            obstore.put(self.store, f"{self.path}/records/{number:020}.batch", record_batch(one(number)))
        self.end += messages
        self.put(f"{self.path}/watermark.json", {"low": None, "high": self.end, "timestamps": None})

    def commit(self, group: str, offset: int) -> None:
        self.put(
            f"{ROOT}/groups/consumers/{group}/offsets/{self.topic}/partitions/0000000000.json",
            {"offset": offset},
        )

    def log(self) -> list[tuple[int, list[Message]]]:
        keys = sorted(
            entry["path"] for page in obstore.list(self.store, f"{self.path}/records/") for entry in page
        )
        return [(int(key[-26:-6]), messages_of(bytes(obstore.get(self.store, key).bytes()))) for key in keys]


def in_a_minute() -> float:
    return time.time() + 60


async def test_a_long_log_becomes_a_few_objects_with_the_same_messages() -> None:
    bucket = Bucket(2 * MERGE_FROM)
    cleaner = LogCleaner(bucket.store, "caravan", ALL, in_a_minute)
    await cleaner.round()
    log = bucket.log()
    assert [offset for offset, _ in log] == [0, 1, bucket.end - 1]
    assert [message for _, messages in log for message in messages] == list(map(one, range(bucket.end)))
    await cleaner.ping()


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_a_clock_that_is_set_says_nothing_of_how_long_ago_a_round_was(step: int) -> None:
    now = time.time()
    cleaner = LogCleaner(Bucket(50).store, "caravan", ALL, lambda: now)
    with pytest.raises(Transient):
        await cleaner.ping()
    await cleaner.round()
    now += step
    await cleaner.ping()


async def test_retention_waits_for_a_group_and_what_is_new_is_found() -> None:
    bucket = Bucket(50)
    bucket.commit("monitor-edge1", 10)
    bucket.commit("replay", 30)
    now = [in_a_minute()]
    cleaner = LogCleaner(bucket.store, "caravan", Retention(DAY, 2**40, 5), lambda: now[0])
    await cleaner.round()
    assert bucket.log()[0][0] == 10
    bucket.commit("monitor-edge1", 55)
    bucket.commit("replay", 60)
    bucket.produce(10)
    await cleaner.round()
    assert [offset for offset, _ in bucket.log()] == list(range(55, 60))
    now[0] += 2 * DAY
    await cleaner.round()
    assert [offset for offset, _ in bucket.log()] == [59]


async def test_a_partition_that_was_just_asked_is_left_for_a_while_unless_all_are_looked_at() -> None:
    bucket = Bucket(10)
    cleaner = LogCleaner(bucket.store, "caravan", Retention(DAY, 2**40, 5), in_a_minute)
    await cleaner.round(patient=True)
    assert bucket.log()[0][0] == 5
    bucket.produce(10)
    await cleaner.round(patient=True)
    assert bucket.log()[0][0] == 5
    await cleaner.round()
    assert bucket.log()[0][0] == 15


async def test_dead_letters_stay_until_they_were_sent_again() -> None:
    bucket = Bucket(50, "edge1-dead-letter")
    cleaner = LogCleaner(bucket.store, "caravan", Retention(1, 2**40, 5), in_a_minute)
    await cleaner.round()
    assert len(bucket.log()) == 50
    bucket.commit("replay", 40)
    later = LogCleaner(bucket.store, "caravan", Retention(1, 2**40, 5), in_a_minute)
    await later.round()
    assert bucket.log()[0][0] == 40


async def test_a_cleaner_that_starts_again_and_one_whose_topic_went_carry_on() -> None:
    bucket = Bucket(50)
    cleaner = LogCleaner(bucket.store, "caravan", Retention(DAY, 2**40, 5), in_a_minute)
    await cleaner.round()
    assert len(bucket.log()) == 5
    again = LogCleaner(bucket.store, "caravan", Retention(DAY, 2**40, 2), in_a_minute)
    await again.round()
    assert len(bucket.log()) == 2
    bucket.put(f"{ROOT}/meta.json", {"topics": {}})
    await again.round()
    await again.ping()


async def test_an_empty_bucket_is_no_fault() -> None:
    cleaner = LogCleaner(MemoryStore(), "caravan", ALL)
    await cleaner.round()
    await cleaner.ping()


async def test_a_log_that_cannot_be_understood_keeps_no_other_from_being_cleaned() -> None:
    bucket = Bucket(50)
    topic = {"id": "odd", "topic": {"num_partitions": 1}}
    meta = {"topics": {"a": topic, "edge1": {"id": "u", "topic": {"num_partitions": 1}}}}
    bucket.put(f"{ROOT}/meta.json", meta)
    bucket.put(f"{ROOT}/topics/a/partitions/0000000000/watermark.json", ["odd"])
    obstore.put(bucket.store, f"{bucket.path}/records/notes.txt", b"of someone else")
    cleaner = LogCleaner(bucket.store, "caravan", Retention(DAY, 2**40, 5), in_a_minute)
    await cleaner.round()
    obstore.delete(bucket.store, f"{bucket.path}/records/notes.txt")
    assert len(bucket.log()) == 5
    await cleaner.ping()


@pytest.mark.parametrize("odd", [[], {"topics": []}, {"topics": {"a": 1}}])
async def test_topics_that_cannot_be_told_leave_the_known_ones_to_be_cleaned(odd: object) -> None:
    bucket = Bucket(10)
    cleaner = LogCleaner(bucket.store, "caravan", Retention(DAY, 2**40, 5), in_a_minute)
    await cleaner.round()
    bucket.put(f"{ROOT}/meta.json", odd)
    bucket.produce(10)
    await cleaner.round()
    assert len(bucket.log()) == 5
    await cleaner.ping()


async def test_where_it_cannot_be_told_what_a_group_has_read_everything_stays_until_it_is_old() -> None:
    bucket = Bucket(50)
    bucket.put(f"{ROOT}/groups/consumers/odd/offsets/{bucket.topic}/partitions/0000000000.json", {"at": 7})
    await LogCleaner(bucket.store, "caravan", Retention(DAY, 2**40, 5), in_a_minute).round()
    assert len(bucket.log()) == 50
