"""The picture of how images and models travel, drawn from what the services' routes declare.

A service is a box, named with its routes. In the middle stands what routes read and write: buckets, topics,
and the calls from one service to another. The words of a `Route` name them: Kafka `…`, S3 `…`, MQTT `…`,
HTTP `…`, gRPC `…`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import mean

from caravan.route import Route

WIDTH, TOP, GAP, MARGIN = 1080, 64, 22, 24
BOX, PILL, PILL_HEIGHT = 330, 204, 26
HEAD, ROW = 34, 17
NAMED = re.compile(r"\b(Kafka|S3|MQTT|HTTP|gRPC) ((?:`[^`]+`(?:, and |, or |, | and | or )?)+)")
CALLS = ("HTTP", "gRPC")
ANSWERS = "the answer"
"""How the effect of a route begins that only reads."""
TITLE = "How images and models travel in Caravan"
STYLE = """
    svg { font: 13px system-ui, sans-serif; }
    .bg { fill: #fbfaf7; } .box { fill: #fff; stroke: #b4532a; stroke-width: 1.5; } .head { fill: #b4532a; }
    .name { fill: #fff; font-weight: 600; font-size: 15px; } .t { fill: #2b2822; } .s { fill: #6b6557; }
    .site { fill: #6b6557; font-size: 14px; letter-spacing: .12em; text-anchor: middle; }
    .pill { fill: #f1ece0; stroke: #6b6557; } .m { text-anchor: middle; } .r { text-anchor: end; }
    .a { fill: none; stroke: #6b6557; stroke-width: 1.4; } .e { stroke-dasharray: 4 4; }
    .tip { fill: #6b6557; }
    @media (prefers-color-scheme: dark) {
      .bg { fill: #1c1b19; } .box { fill: #262421; stroke: #d1703f; } .t { fill: #eee8dc; }
      .s, .site { fill: #b5ad9c; } .pill { fill: #35322d; stroke: #a59d8c; } .a { stroke: #a59d8c; }
      .tip { fill: #a59d8c; }
    }"""


@dataclass(frozen=True)
class Service:
    """A service at one site, with those of its routes that run there."""

    name: str
    routes: Sequence[Route]


@dataclass(frozen=True)
class Way:
    """A line between a service and a place: what it `writes`, or reads; `sure` if a message depends on it."""

    service: str
    place: str
    writes: bool
    sure: bool = True


@dataclass
class _Drawing:
    """Where each box and pill stands, from its top, and what was drawn."""

    tops: dict[str, float] = field(default_factory=dict)
    heights: dict[str, float] = field(default_factory=dict)
    parts: list[str] = field(default_factory=list)


def places(text: str) -> list[str]:
    """Return what a text of a route names: `Kafka trigger`, `S3 E-data`."""
    return [
        f"{kind} {name}" for kind, names in NAMED.findall(text) for name in re.findall(r"`([^`]+)`", names)
    ]


def ways(services: Iterable[Service]) -> list[Way]:
    """Return the lines of a picture, each once, whatever number of routes goes along it."""
    found: dict[tuple[str, str, bool], bool] = {}
    for service in services:
        for route in service.routes:
            reads = route.source + (route.mandatory if route.mandatory.startswith(ANSWERS) else "")
            writes = "" if route.mandatory.startswith(ANSWERS) else route.mandatory
            for text, is_write, sure in (
                (reads, False, True),
                (writes, True, True),
                (route.best_effort, True, False),
            ):
                for place in places(text):
                    key = service.name, place, is_write
                    found[key] = found.get(key, False) or sure
    called = {place for _, place, _ in found if place.startswith(CALLS)}
    for service in services:
        found |= {
            (service.name, place, False): True for place in called if place.endswith(f" {service.name}")
        }
    return [Way(*key, sure) for key, sure in found.items()]


def picture(central: Sequence[Service], edge: Sequence[Service]) -> str:
    """Return the picture as SVG: central at the left, an edge at the right, what they share in between."""
    lines = ways([*central, *edge])
    drawing = _Drawing()
    bottom = max(_column(drawing, central, MARGIN), _column(drawing, edge, WIDTH - MARGIN - BOX))
    middle = {
        service.name: drawing.tops[service.name] + drawing.heights[service.name] / 2
        for service in (*central, *edge)
    }
    names = sorted(
        {way.place for way in lines},
        key=lambda place: (mean(middle[way.service] for way in lines if way.place == place), place),
    )
    step = (bottom - TOP - PILL_HEIGHT) / max(1, len(names) - 1)
    for number, place in enumerate(names):
        drawing.tops[place] = TOP + number * step
        _pill(drawing, place)
    for service in (*central, *edge):
        _join(drawing, [way for way in lines if way.service == service.name], is_left=service in central)
    height = bottom + MARGIN
    described = "; ".join(
        f"{service.name}: {', '.join(r.id for r in service.routes)}" for service in (*central, *edge)
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}"',
            '  role="img" aria-labelledby="title desc">',
            f'  <title id="title">{TITLE}</title>',
            f'  <desc id="desc">{escape(described)}.</desc>',
            f"  <style>{STYLE}\n  </style>",
            f'  <rect class="bg" width="{WIDTH}" height="{height:.0f}" rx="16"/>',
            _text(MARGIN + BOX / 2, 36, "CENTRAL", "site"),
            _text(WIDTH - MARGIN - BOX / 2, 36, "AN EDGE", "site"),
            *drawing.parts,
            "</svg>",
            "",
        ]
    )


def _column(drawing: _Drawing, services: Sequence[Service], left: float) -> float:
    """Draw the boxes of a site one below the other; return where the last one ends."""
    top: float = TOP
    for service in services:
        height = HEAD + ROW * len(service.routes) + 10
        drawing.tops[service.name], drawing.heights[service.name] = top, height
        drawing.parts += [
            f'  <rect class="box" x="{left}" y="{top}" width="{BOX}" height="{height}" rx="9"/>',
            f'  <path class="head" d="M{left} {top + 26}v-17a9 9 0 0 1 9 -9h{BOX - 18}a9 9 0 0 1 9 9v17z"/>',
            _text(left + 12, top + 18, service.name, "name"),
        ]
        for number, route in enumerate(service.routes):
            y = top + HEAD + 12 + ROW * number
            drawing.parts += [
                _text(left + 12, y, route.id, "t"),
                _text(left + BOX - 12, y, _http(route.source), "s r"),
            ]
        top += height + GAP
    return top - GAP


def _http(source: str) -> str:
    """Return how a route is asked over HTTP, `POST /zip` or `GET /reports/…`; nothing for one that is not."""
    found = re.search(r"`((?:[A-Z]+)(?: /[^`]*)?)`(?: or `([A-Z]+ /[^`]*)`)?", source)
    if not found or not re.match(r"(GET|POST|PUT)\b", found[1]):
        return ""
    return re.sub(r"<.*", "…", f"{found[1]} or {found[2]}" if found[2] else found[1])


def _pill(drawing: _Drawing, place: str) -> None:
    left, top = (WIDTH - PILL) / 2, drawing.tops[place]
    drawing.parts += [
        f'  <rect class="pill" x="{left}" y="{top:.0f}" width="{PILL}" height="{PILL_HEIGHT}" rx="13"/>',
        _text(WIDTH / 2, top + 18, place, "t m"),
    ]


def _join(drawing: _Drawing, lines: Sequence[Way], *, is_left: bool) -> None:
    """Draw the lines of one box, which leave it in the order in which they arrive."""
    at_box = MARGIN + BOX if is_left else WIDTH - MARGIN - BOX
    at_pill = (WIDTH - PILL) / 2 if is_left else (WIDTH + PILL) / 2
    towards = 1 if is_left else -1
    for number, way in enumerate(sorted(lines, key=lambda way: (drawing.tops[way.place], way.writes))):
        top, height = drawing.tops[way.service], drawing.heights[way.service]
        y = top + height * (number + 1) / (len(lines) + 1)
        goal = drawing.tops[way.place] + PILL_HEIGHT / 2 + (4 if way.writes else -4)
        tip, tip_y, heading = (at_pill, goal, towards) if way.writes else (at_box, y, -towards)
        bend = (at_box + at_pill) / 2
        dashed = "" if way.sure else " e"
        curve = f"M{at_box} {y:.0f}C{bend} {y:.0f} {bend} {goal:.0f} {at_pill} {goal:.0f}"
        drawing.parts += [
            f'  <path class="a{dashed}" d="{curve}"/>',
            f'  <path class="tip" d="M{tip} {tip_y:.0f}l{-8 * heading} -4v8z"/>',
        ]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'  <text class="{kind}" x="{x:g}" y="{y:.0f}">{escape(text)}</text>'
