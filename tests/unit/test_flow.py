"""The picture of the flow, made from what routes declare."""

import xml.etree.ElementTree as ET

from caravan.route import Route
from support.flow import Service, Way, picture, ways

FEEDER = Service(
    "feeder",
    [
        Route(
            "zip-upload",
            source="`POST /zip`",
            mandatory="S3 `E-data`; Kafka `trigger`",
            best_effort="Kafka `E`",
        )
    ],
)
SHOPPER = Service(
    "shopper",
    [
        Route("push", source="`POST /zip`", mandatory="what HTTP `feeder` says"),
        Route(
            "models", source="`GET /models`", mandatory="the answer: what S3 `production` and `valid` hold"
        ),
    ],
)


def test_what_a_route_must_do_is_a_line_and_what_may_fail_a_dashed_one() -> None:
    assert ways([FEEDER]) == [
        Way("feeder", "S3 E-data", writes=True),
        Way("feeder", "Kafka trigger", writes=True),
        Way("feeder", "Kafka E", writes=True, sure=False),
    ]


def test_a_route_that_only_answers_reads_what_it_names() -> None:
    assert Way("shopper", "S3 production", writes=False) in ways([SHOPPER])
    assert Way("shopper", "S3 valid", writes=False) in ways([SHOPPER])


def test_a_call_leads_to_the_service_that_it_names() -> None:
    assert {way for way in ways([FEEDER, SHOPPER]) if way.place == "HTTP feeder"} == {
        Way("shopper", "HTTP feeder", writes=True),
        Way("feeder", "HTTP feeder", writes=False),
    }


def test_the_picture_names_every_service_route_and_place_once() -> None:
    drawn = [text for node in ET.fromstring(picture([FEEDER], [SHOPPER])).iter() if (text := node.text or "")]

    for name in ("feeder", "shopper", "zip-upload", "push", "models", "Kafka trigger", "HTTP feeder"):
        assert drawn.count(name) == 1
