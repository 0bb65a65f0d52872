"""shopper: its settings are understood, or every fault of them is named at the start."""

import pytest
from pydantic import ValidationError

from shopper.doors.topics import Topics, parse_topics
from shopper.settings import ShopperSettings


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> type[ShopperSettings]:
    for name in ShopperSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return ShopperSettings


def test_options_of_a_model_go_before_the_common_ones(
    read: type[ShopperSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "MODELS",
        '{"fashion_classifier": {"scale": "-1..1", "classes": ["shirt", "bag"], "score_accuracy": 0.9,'
        ' "size": [28, 30]}}',
    )
    settings = read()
    options = settings.options_of("fashion_classifier")
    assert (options.scale, options.classes, options.size) == ("-1..1", ("shirt", "bag"), (28, 30))
    assert settings.accuracy_of("fashion_classifier") == 0.9
    assert settings.accuracy_of("tea_model_b64") == settings.score_accuracy


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("{", ["JSON"]),
        ("[]", ["JSON"]),
        ('{"a b": {}}', ["'a b'"]),
        (
            '{"m": {"scale": "0..2", "colour": 1}, "n": {"score_accuracy": 2}}',
            ["m.scale", "m.colour", "n.score"],
        ),
        ('{"m": {"classes": ["a", "a"]}, "n": {"size": [0, 28]}}', ["m.classes", "n.size"]),
    ],
)
def test_every_fault_of_the_models_is_named(
    read: type[ShopperSettings], monkeypatch: pytest.MonkeyPatch, text: str, faults: list[str]
) -> None:
    monkeypatch.setenv("MODELS", text)
    with pytest.raises(ValidationError) as caught:
        read()
    assert all(fault in str(caught.value) for fault in faults)


def test_topics_are_read_with_their_replies_and_models(
    read: type[ShopperSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read().tensor_topics == (Topics("apparel_images", "apparel-predict", "fashion_classifier"),)
    monkeypatch.setenv("TENSOR_TOPICS", "cameras/+=answers:digits, more/a/#=more-answers")
    assert read().tensor_topics == (
        Topics("cameras/+", "answers", "digits"),
        Topics("more/a/#", "more-answers", ""),
    )
    monkeypatch.setenv("TENSOR_TOPICS", "")
    assert read().tensor_topics == ()


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        (["a"], "is not request-topic"),
        (["a=b=c"], "is not request-topic"),
        (["a/+/c=b"], "is not request-topic"),
        (["#=b"], "is not request-topic"),
        (["a=b/+"], "is not request-topic"),
        (["a=b:"], "not the name of a model"),
        (["a=b:c d"], "not the name of a model"),
        (["a=b", "a=c"], "overlap"),
        (["a/#=b", "a/x/+=c"], "overlap"),
        (["detection/tensors=b"], "overlap"),
        (["a=a"], "taken for requests"),
        (["a/+=a/answers"], "taken for requests"),
        (["a=detection/x"], "taken for requests"),
        (["a=monitor"], "events"),
    ],
)
def test_topics_that_would_not_work_are_refused(entries: list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_topics(entries)


@pytest.mark.parametrize(
    ("requests", "topic", "reply"),
    [
        ("cameras", "cameras", "answers"),
        ("cameras", "cameras/1", None),
        ("cameras/+", "cameras/1", "answers/1"),
        ("cameras/+", "cameras/1/2", None),
        ("cameras/+", "cameras", None),
        ("cameras/#", "cameras/1/2", "answers/1/2"),
        ("cameras/#", "camera/1", None),
    ],
)
def test_a_request_is_answered_beside_its_own_place(requests: str, topic: str, reply: str | None) -> None:
    topics = Topics(requests, "answers")
    rest = topics.rest_of(topic)
    assert (None if rest is None else topics.reply_to(rest)) == reply
