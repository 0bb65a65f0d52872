"""The report: what it says, what it must not let through, and how large it gets."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training import charts
from training.evaluate import Answer, Evaluation, evaluate
from training.gate import GateResult
from training.layer import Curves
from training.report import (
    MOST_CHANGED,
    MOST_CLASSES,
    MOST_MISTAKES,
    MOST_SAMPLED,
    SAMPLES,
    Facts,
    Material,
    page,
    write_report,
)

CURVES = Curves((2.0, 1.0), (2.1, 1.2), (0.5, 0.75), 2)
FACTS = Facts(
    edge="edge1",
    model="tea",
    digest="d" * 64,
    parent=None,
    learned={"green": 30, "lemon": 20},
    groups={"green": 12, "lemon": 9},
    left_aside={"unreadable": 3},
    seed=0,
    backbone="lite0",
    verdict=GateResult(),
)


class Reader(HTMLParser):
    """Reads a page as a browser would: its text, its tables, and the addresses in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._style = self._cell = False
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._style = tag == "style"
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._style = False
        elif tag == "table":
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._style:
            return
        self.text += f"{data} "
        if self._cell:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data}".strip()

    def rows_of(self, name: str) -> list[list[str]]:
        return [row[1:] for row in self.rows if row and row[0] == name]


class Album:
    """Images on disk, by SHA-256."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.images: dict[str, Path] = {}
        self.members: list[tuple[str, str]] = []

    def add(self, name: str, side: int = 30) -> str:
        """Add an image of a class: noise, the largest that a JPEG can be; two of a size are the same file."""
        sha = hashlib.sha256(str(len(self.images)).encode()).hexdigest()
        file = self.directory / f"{side}.png"
        if not file.exists():
            noise = np.random.default_rng(side).integers(0, 255, (side, side, 3), dtype=np.uint8)
            Image.fromarray(noise).save(file)
        self.images[sha] = file
        self.members.append((name, sha))
        return sha

    def material(
        self, after: Sequence[Answer], before: Evaluation | None = None, facts: Facts = FACTS
    ) -> Material:
        return Material(evaluate(after), before, CURVES, facts, self.members, self.images)


@pytest.fixture
def album(tmp_path: Path) -> Album:
    return Album(tmp_path)


def answers_of_a_small_case(album: Album) -> list[Answer]:
    """Three greens and a lemon; one green is taken for a lemon."""
    top = (("lemon", 0.6), ("green", 0.3), ("other", 0.1))
    return [
        Answer(album.add("green"), "green", "green", 0.9),
        Answer(album.add("green"), "green", "green", 0.9),
        Answer(album.add("green"), "green", "lemon", 0.6, top),
        Answer(album.add("lemon"), "lemon", "lemon", 0.8),
    ]


def test_a_class_of_one_group_or_one_photo_is_warned_of(album: Album) -> None:
    facts = replace(FACTS, learned={"green": 30, "lemon": 20, "mint": 1}, groups={"green": 1, "mint": 1})
    text = Reader(page(album.material(answers_of_a_small_case(album), facts=facts))).text
    assert "All photos of green look as if taken in one place: take some elsewhere." in text
    assert "There is one photo of mint: how well it is recognised is not measured." in text
    assert "photos of lemon" not in text


def test_the_figures_of_a_small_case_are_on_the_page(album: Album) -> None:
    read = Reader(page(album.material(answers_of_a_small_case(album))))
    assert "75.00% accuracy" in read.text
    assert "0.733 F1" in read.text
    assert "on 4 images" in read.text
    counted, figures, confused = read.rows_of("green")
    assert counted[:3] == ["30", "3", "12"]
    assert figures == ["1.000", "0.667", "0.800"]
    assert confused == ["2", "1"]
    counted, figures, confused = read.rows_of("lemon")
    assert counted[:2] == ["20", "1"]
    assert figures == ["0.500", "1.000", "0.667"]
    assert confused == ["", "1"]
    assert read.rows_of("data") == [["d" * 64]]
    assert read.rows_of("left aside, unreadable") == [["3"]]
    assert "kept: step 2" in read.text


def test_a_mistake_is_shown_with_its_picture_and_its_likeliest_classes(album: Album) -> None:
    read = Reader(page(album.material(answers_of_a_small_case(album))))
    assert "1 misclassified" in read.text
    assert "green lemon 0.60 green 0.30 other 0.10" in read.text
    assert len(read.addresses) == 4 + 1  # each image is a sample, one a mistake
    assert all(address.startswith("data:image/webp;base64,") for address in read.addresses)


def test_a_model_that_tells_no_other_classes_is_shown_with_its_answer_alone(album: Album) -> None:
    answers = [replace(answer, top=()) for answer in answers_of_a_small_case(album)]
    assert "green lemon 0.60" in Reader(page(album.material(answers))).text


def test_the_first_version_says_so_and_a_flawless_one_too(album: Album) -> None:
    answers = [answer for answer in answers_of_a_small_case(album) if answer.right]
    text = Reader(page(album.material(answers))).text
    assert "It is the first version." in text
    assert "It passed the gate: it loads, it answers." in text
    assert "None: every held-out image was answered rightly." in text


def test_where_nothing_was_held_out_the_page_gives_no_figure(album: Album) -> None:
    text = Reader(page(album.material([], evaluate([])))).text
    assert "\N{EN DASH} accuracy" in text
    assert "%" not in text
    assert "Compared" not in text


def test_a_version_is_set_beside_its_parent_image_by_image(album: Album) -> None:
    after = answers_of_a_small_case(album)
    before = [replace(after[0], label="lemon"), after[1], replace(after[2], label="green"), after[3]]
    facts = replace(FACTS, parent=4, verdict=GateResult("worse than version 4"))
    read = Reader(page(album.material(after, evaluate(before), facts)))
    assert "Compared with version 4" in read.text
    assert "The gate rejected it: worse than version 4." in read.text
    assert read.rows_of("accuracy") == [["75.00%", "75.00%", "±0"]]
    assert "1 newly right green before: lemon now: green" in read.text
    assert "1 newly wrong green before: green now: lemon" in read.text


def test_a_parent_with_fewer_classes_is_worse_in_those_that_are_new(album: Album) -> None:
    after = answers_of_a_small_case(album)
    before = [replace(answer, label="lemon") for answer in after]
    read = Reader(page(album.material(after, evaluate(before), replace(FACTS, parent=1))))
    assert read.rows_of("accuracy") == [["25.00%", "75.00%", "+0.500"]]
    assert read.rows_of("F1, green") == [["0.000", "0.800", "+0.800"]]
    assert "2 newly right" in read.text
    assert "newly wrong" not in read.text


def test_a_parent_that_cannot_answer_is_named_with_its_reason(album: Album) -> None:
    facts = replace(FACTS, parent=4, not_compared="version 4 does not answer: no signature")
    read = Reader(page(album.material(answers_of_a_small_case(album), None, facts)))
    assert (
        "could not be compared with the version before: version 4 does not answer: no signature" in read.text
    )
    assert "first version" not in read.text
    assert "not worse" not in read.text
    assert read.rows_of("version before") == [["4"]]


def test_names_are_text_wherever_they_stand(album: Album) -> None:
    bad = '"><script>alert(1)</script><img src=x onerror=y>'
    answers = [
        Answer(album.add(bad), bad, "green", 0.9, ((bad, 0.5), ("green", 0.5))),
        Answer(album.add("green"), "green", bad, 0.9),
    ]
    before = [replace(answer, label=answer.truth) for answer in answers]
    facts = replace(
        FACTS, edge=bad, model=bad, parent=1, learned={bad: 3}, left_aside={bad: 1}, verdict=GateResult(bad)
    )
    for material in (
        album.material(answers, evaluate(before), facts),
        album.material(answers, None, replace(facts, not_compared=bad)),
    ):
        html = page(material)
        read = Reader(html)
        assert "script" not in read.tags
        assert bad in read.text
        assert all(address.startswith("data:") for address in read.addresses)
        assert "<img src=x" not in html


def test_the_page_needs_nothing_else_and_runs_nothing(album: Album) -> None:
    html = page(album.material(answers_of_a_small_case(album)))
    assert html.startswith("<!doctype html>")
    assert html.rstrip().endswith("</html>")
    assert not {"script", "link", "iframe", "form", "a"} & set(Reader(html).tags)
    assert "@import" not in html
    assert "url(" not in html


def test_its_size_is_bounded_however_many_classes_and_mistakes_there_are(album: Album) -> None:
    names = [f"class-{number:04}" for number in range(800)]
    answers = [Answer(album.add(name, 200), name, "other", 0.5) for name in names]
    before = [replace(answer, label=answer.truth) for answer in answers]
    facts = replace(FACTS, parent=1, learned=dict.fromkeys(names, 1))
    html = page(album.material(answers, evaluate(before), facts))
    read = Reader(html)
    assert len(html) < 3_000_000
    assert html.count("data:image") <= MOST_MISTAKES + MOST_CHANGED + MOST_SAMPLED * SAMPLES
    assert f"The {MOST_CLASSES} of 801 classes with the lowest F1" in read.text
    assert f"and {800 - MOST_MISTAKES} more" in read.text
    assert f"and {800 - MOST_CHANGED} more" in read.text


def test_classes_that_need_a_look_come_first_where_not_all_have_a_line(album: Album) -> None:
    names = [f"class-{number:04}" for number in range(MOST_CLASSES + 5)]
    answers = [Answer(album.add(name), name, name, 0.9) for name in names[:-1]]
    answers.append(Answer(album.add(names[-1]), names[-1], names[0], 0.9))
    read = Reader(page(album.material(answers, facts=replace(FACTS, learned={}))))
    assert read.rows_of(names[-1])[1] == ["0.000", "0.000", "0.000"]
    assert read.rows_of(names[-2]) == []


def test_of_many_classes_the_commonest_confusions_are_listed(album: Album) -> None:
    names = [f"class-{number:02}" for number in range(charts.MOST_CLASSES + 1)]
    answers = [Answer(album.add(name), name, name, 0.9) for name in names]
    answers += [Answer(album.add(names[3]), names[3], names[5], 0.9) for _ in range(2)]
    read = Reader(page(album.material(answers, facts=replace(FACTS, learned={}))))
    assert ["class-05", "2"] in read.rows_of("class-03")


def test_an_image_that_is_gone_or_damaged_leaves_a_gap_not_a_fault(album: Album, tmp_path: Path) -> None:
    answers = answers_of_a_small_case(album)
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"no image")
    album.images |= {answers[0].sha256: tmp_path / "gone.jpg", answers[1].sha256: damaged}
    write_report(tmp_path / "report", album.material(answers))
    read = Reader((tmp_path / "report" / "index.html").read_text())
    assert read.text.count("no picture") == 2
    assert "" not in read.addresses


def test_long_curves_are_drawn_with_as_many_points_as_can_be_seen() -> None:
    values = tuple(1 / (step + 1) for step in range(600))
    plot = charts.plot(Curves(values, values, values, 600))
    assert all(len(line.points.split()) == charts.MOST_POINTS for line in plot.lines)
    assert plot.kept_at == charts.WIDTH - charts.MARGIN
    heights = [float(point.split(",")[1]) for point in plot.lines[0].points.split()]
    assert heights == sorted(heights)
    assert heights[0] == charts.MARGIN
