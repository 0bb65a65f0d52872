"""shopper: the journal of the edge scoring keeps its counts through kills, full disks and damage."""

import json
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from caravan.names import MORE
from shopper.ports import Prediction
from shopper.scoring.journal import FILE, MOST_CAMERAS, Journal
from shopper.scoring.values import Message, Scored

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
CLASSES = ("tea-green", "tea-lemon")


def scored(camera: str = "till-3", score: float = 0.9, version: int = 2, image: bytes = b"jpeg") -> Scored:
    prediction = Prediction("tea-green", score, "tea_model_b64", version, {}, CLASSES, 0.001, 0.02)
    certain = score >= 0.8
    return Scored(camera, prediction, certain, AT, None if certain else image)


def opened(folder: Path, max_bytes: int = 10**9) -> Journal:
    return Journal(folder, "edge1", 10, 0.8, max_bytes)


def waiting(journal: Journal) -> list[Message]:
    return journal.oldest(10_000, 10**9)


def bodies(journal: Journal, kind: str) -> list[dict[str, Any]]:
    return [json.loads(message.body) for message in waiting(journal) if message.kind == kind]


def counted(windows: list[dict[str, Any]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for window in windows:
        for camera, counts in window["camera_metrics"].items():
            total[camera] += sum(counts["certain"]) + sum(counts["uncertain"])
    return total


def test_a_window_that_has_ended_is_a_message_for_each_camera_and_model(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.add([scored("a"), scored("a", 0.5), scored("b"), scored("a", version=3)], now=1005)
    assert journal.close_windows(1009.9) == 0
    journal.add([scored("a")], now=1010.1)
    assert journal.close_windows(1010.2) == 3
    windows = bodies(journal, "window")
    found = {
        (camera, window["config"]["model_version"]): counts
        for window in windows
        for camera, counts in window["camera_metrics"].items()
    }
    assert found == {
        ("a", 2): {"certain": [1, 0], "uncertain": [1, 0]},
        ("a", 3): {"certain": [1, 0], "uncertain": [0, 0]},
        ("b", 2): {"certain": [1, 0], "uncertain": [0, 0]},
    }
    assert journal.close_windows(2000) == 1
    assert len({window["id"] for window in bodies(journal, "window")}) == 4


def test_a_window_of_a_clock_that_was_ahead_is_closed_when_it_is_set_right(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.add([scored("a")], now=4_000_000_000)
    journal.add([scored("a")], now=1005)
    assert journal.close_windows(1006) == 1
    assert journal.close_windows(1010) == 1
    windows = bodies(journal, "window")
    assert counted(windows) == {"a": 2}
    assert [window["window_start"][:4] for window in windows] == ["2096", "1970"]


def test_cameras_of_a_window_beyond_the_bound_are_counted_as_one(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    names = [f"camera-{number}" for number in range(MOST_CAMERAS + 50)]
    journal.add([scored(name) for name in names[:100]], now=1001)
    journal.close()
    journal = opened(tmp_path)
    journal.add([scored(name) for name in names], now=1005)
    assert journal.close_windows(1010) == MOST_CAMERAS + 1
    total = counted(bodies(journal, "window"))
    assert (total[MORE], total.total()) == (50, len(names) + 100)
    journal.add([scored(name) for name in names[-3:]], now=1011)
    assert journal.close_windows(1020) == 3


def test_where_counts_alone_are_too_many_bytes_cameras_are_not_told_apart(tmp_path: Path) -> None:
    journal = opened(tmp_path, max_bytes=10_000)
    for window in range(40):
        journal.add([scored(f"camera-{window}-{n}") for n in range(10)], now=1000 + 10 * window)
        journal.close_windows(1010 + 10 * window)
    assert counted(bodies(journal, "window")).total() == 400
    assert journal.messages < 70


def test_rows_that_a_clock_set_back_adds_to_a_closed_window_are_a_message_of_their_own(
    tmp_path: Path,
) -> None:
    journal = opened(tmp_path)
    for _ in range(2):
        journal.add([scored("a")], now=1005)
        journal.close_windows(1010)
    windows = bodies(journal, "window")
    assert counted(windows) == {"a": 2}
    assert len({window["id"] for window in windows}) == 2


def test_the_next_process_goes_on_where_the_last_one_was(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add([scored("a"), scored("b", 0.1)], now=1005)
    first.close()
    second = opened(tmp_path)
    assert (second.messages, second.bytes) == (1, len(waiting(second)[0].body) + 4)
    second.add([scored("a")], now=1006)
    second.close_windows(1010)
    assert counted(bodies(second, "window")) == {"a": 2, "b": 1}
    second.remove(message.number for message in waiting(second))
    assert (second.messages, second.bytes, waiting(second)) == (0, 0, [])


KILLED = """
import itertools, sys
from pathlib import Path
from datetime import UTC, datetime
from shopper.ports import Prediction
from shopper.scoring.values import Scored
from shopper.scoring.journal import Journal

journal = Journal(Path(sys.argv[1]), "edge1", 10, 0.8, 10**9)
sent = open(sys.argv[2], "a", buffering=1)
for number in itertools.count():
    scores = (0.9, 0.5)
    journal.add(
        [Scored("a", Prediction("tea-green", s, "m", 1, {}, ("tea-green",)), s > 0.8, datetime.now(UTC),
            None if s > 0.8 else b"jpeg") for s in scores],
        now=number,
    )
    print(2, flush=True)
    journal.close_windows(number)
    for message in journal.oldest(3, 10**6):
        sent.write(message.body + "\\n")
        journal.remove([message.number])
"""


def test_a_process_killed_at_any_moment_loses_nothing_and_its_repeats_are_known_by_their_ids(
    tmp_path: Path,
) -> None:
    replied = 0
    log = tmp_path / "sent"
    for replies in (1, 7, 40):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), str(log)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            for _ in range(replies):
                replied += int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            # What it had counted but nobody had read yet was replied too.
            replied += sum(map(int, child.stdout.read().split()))
    journal = opened(tmp_path)
    journal.close_windows(10**9)
    left = [message.body for message in waiting(journal)]
    lines = [line for line in log.read_text().splitlines() if line.endswith("}")]
    unique = {body["id"]: body for body in map(json.loads, [*lines, *left])}
    windows = [body for body in unique.values() if "camera_metrics" in body]
    uncertain = [body for body in unique.values() if "result_class" in body]
    # A child may die after its commit and before its reply: two detections each, at most.
    assert replied <= counted(windows)["a"] <= replied + 3 * 2
    assert counted(windows)["a"] == 2 * len(uncertain)


def test_when_the_outbox_is_full_the_oldest_images_give_way_and_no_count_does(tmp_path: Path) -> None:
    journal = opened(tmp_path, max_bytes=5000)
    for number in range(20):
        journal.add([scored("a", 0.5, image=bytes(1000))], now=number)
    journal.close_windows(100)
    kept = [int(body["id"].split("-")[1]) for body in bodies(journal, "uncertain")]
    assert kept == list(range(21 - len(kept), 21))
    assert 1 <= len(kept) <= 4
    assert counted(bodies(journal, "window")) == {"a": 20}
    messages = waiting(journal)
    assert journal.bytes == sum(len(m.body) + len(m.image or b"") for m in messages)


def test_messages_are_read_in_order_and_in_bounded_batches(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.add([scored("a", 0.5, image=bytes(1000)) for _ in range(5)], now=1)
    numbers = [message.number for message in journal.oldest(10, 3000)]
    assert numbers == sorted(numbers)
    assert len(numbers) == 2
    assert len(journal.oldest(10, 1)) == 1


def test_a_message_that_kafka_refuses_lets_the_others_pass_and_is_tried_after_the_next_start(
    tmp_path: Path,
) -> None:
    journal = opened(tmp_path)
    journal.add([scored("a", 0.5), scored("b", 0.5)], now=1)
    first, second = waiting(journal)
    journal.refuse(first.number)
    assert [message.number for message in waiting(journal)] == [second.number]
    journal.close()
    assert len(waiting(opened(tmp_path))) == 2


def test_a_damaged_file_is_renamed_and_a_new_one_begun(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    journal = opened(tmp_path)
    journal.add([scored("a")], now=1)
    assert journal.close_windows(100) == 1
    assert [path.name for path in tmp_path.glob("*.damaged")] == [f"{FILE}.damaged"]


def test_a_second_journal_has_ids_of_its_own(tmp_path: Path) -> None:
    names = set()
    for number in range(2):
        journal = opened(tmp_path / str(number))
        journal.add([scored("a", 0.5)], now=1)
        names.add(bodies(journal, "uncertain")[0]["id"])
    assert len(names) == 2
