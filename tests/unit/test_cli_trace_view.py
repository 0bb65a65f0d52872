"""The command `caravan trace`: which trace it draws of a stack's span files, and how."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from caravan_cli.__main__ import commands
from caravan_cli.trace_view import lasting

UPLOAD, DETECTION, LONELY = "4bf92f35" + "0" * 24, "5" * 32, "6" * 32
BATCH = "8750" + "ab" * 30
S = 10**9


def line(trace: str, span: str, parent: str | None, name: str, service: str, *times: int, **more: Any) -> str:
    began, ended = times
    facts: dict[str, Any] = {
        "trace": trace, "span": span, "parent": parent, "name": name, "service": service,
        "began": 1000 * S + began, "ended": 1000 * S + ended, "error": None, "facts": {}, "links": [],
    }  # fmt: skip
    return json.dumps(facts | more)


FILES = {
    "feeder.jsonl": [
        line(UPLOAD, "a", "curl", "zip-upload", "feeder", 0, 2 * S, facts={"batch": BATCH, "exchange": "e"}),
        line(UPLOAD, "b", "a", "receive", "feeder", 0, S // 2),
        line(UPLOAD, "c", "a", "trigger", "feeder", S, 2 * S, links=[]),
        "{ this was cut o",
    ],
    "feeder.jsonl.1": [line(LONELY, "a", None, "price", "feeder", 90 * S, 91 * S)],
    "training.jsonl": [
        line(UPLOAD, "e", "d", "training-run", "training", 4 * S, 8 * S, error="Permanent: no images"),
        line(UPLOAD, "d", "c", "trigger-pipeline", "delivery", 3 * S, 3 * S + 1, links=[{"trace": LONELY}]),
    ],
    "shopper-edge1.jsonl": [
        line(DETECTION, "a", None, "detect-http", "shopper", 20 * S, 20 * S + 12_345_678),
        line(DETECTION, "b", "a", "Predict", "model-server", 20 * S, 20 * S + 9_000_000),
    ],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CARAVAN_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "150")
    for name, lines in FILES.items():
        file = tmp_path / "traces" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
    return tmp_path


def drawn(*words: str) -> list[str]:
    result = CliRunner().invoke(commands, ["trace", *words])
    assert result.exit_code == 0, result.output
    return [text.rstrip() for text in result.output.splitlines()]


@pytest.mark.usefixtures("home")
def test_an_upload_is_drawn_as_a_tree_with_bars_of_time_and_the_total_at_the_top() -> None:
    title, _, _, *rows = drawn("--upload", "8750")
    assert title == f"trace {UPLOAD}  8.00 s  5 spans of feeder, delivery, training"
    spans = [row[:36].split("━")[0].rstrip() for row in rows]
    assert spans == [
        "zip-upload",
        "├─ receive",
        "└─ trigger",
        "   └─ trigger-pipeline",
        "      └─ training-run",
    ]
    assert [row.count("━") for row in rows] == [8, 2, 4, 1, 16]
    starts = [row.index("━") for row in rows]
    assert [start - starts[0] for start in starts] == [0, 0, 4, 12, 16]
    assert rows[0].endswith("2.00 s  feeder    batch=8750abababab…")
    assert rows[3].endswith("delivery  also answers 666666666666…")
    assert rows[4].endswith("training  Permanent: no images")


@pytest.mark.usefixtures("home")
def test_a_narrow_terminal_keeps_names_times_and_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    _, *rows = drawn("--upload", "8750")
    assert max(map(len, rows)) <= 60
    assert any("└─ training-run" in row and row.endswith("4.00 s  training") for row in rows)
    assert "training-run: Permanent: no images" in rows


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [(), ("--last",)])
def test_the_last_one_is_the_last_that_went_from_one_service_to_another(words: tuple[str, ...]) -> None:
    assert drawn(*words)[0] == f"trace {DETECTION}  12.3 ms  2 spans of shopper, model-server"


@pytest.mark.usefixtures("home")
def test_a_trace_that_is_answered_in_another_says_where_it_goes_on() -> None:
    first, *_, last = drawn(LONELY[:6])
    assert first.startswith(f"trace {LONELY}  1.00 s  1 span of feeder")
    assert last == f"goes on in trace {UPLOAD}"


@pytest.mark.usefixtures("home")
def test_a_terminal_that_has_no_lines_and_arrows_shows_the_rest() -> None:
    result = CliRunner(charset="latin-1").invoke(commands, ["trace", UPLOAD])
    assert result.exit_code == 0, result.output
    assert "zip-upload" in result.output


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("words", [("f00",), ("--upload", "f00")])
def test_one_that_is_not_there_is_said_in_a_line(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(commands, ["trace", *words])
    assert result.exit_code == 1
    assert "no such trace in" in result.output


def test_without_any_traces_it_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAVAN_HOME", str(tmp_path))
    result = CliRunner().invoke(commands, ["trace"])
    assert result.exit_code == 1
    assert f"there are no traces in {tmp_path}/traces: start a stack" in result.output.replace("\n", "")


TIMES = {
    0: "0.00 ms",
    123_456: "0.120 ms",
    9_949_999: "9.95 ms",
    99_400_000: "99.4 ms",
    123_400_000: "123 ms",
    999_600_000: "1.00 s",
    34_210_000_000: "34.2 s",
    99_960_000_000: "1.67 min",
}


@pytest.mark.parametrize(("nanoseconds", "text"), TIMES.items())
def test_times_have_three_digits(nanoseconds: int, text: str) -> None:
    assert lasting(nanoseconds) == text
