"""Which MQTT topics the door listens to, where each is answered, and in which form."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from caravan.contracts import MONITOR, is_model_name

DETECTION = "detection/#"
"""Topics of detections; `#` rather than `+`, as a client's name may have slashes."""
DETECTION_REPLIES = "response/detection"

_LEVEL = r"[^/#+=:\x00]+"
_FILTER = re.compile(rf"({_LEVEL}(?:/{_LEVEL})*)(/[+#])?")
_TOPIC = re.compile(rf"{_LEVEL}(?:/{_LEVEL})*")


@dataclass(frozen=True, slots=True)
class Topics:
    """Requests on one topic, or on all below it; replies on another, with the same end.

    Args:
        requests: a topic, or one with `/+` or `/#` behind it.
        replies: a topic; what stood in the wildcard's place comes behind it.
        model: the model that is asked where a message names none; empty for the default.

    """

    requests: str
    replies: str
    model: str = ""

    @property
    def root(self) -> str:
        """The topic of the requests without its wildcard."""
        return self.requests[:-2] if self.requests.endswith(("/+", "/#")) else self.requests

    def rest_of(self, topic: str) -> str | None:
        """Return what a topic has in the wildcard's place; None where it is not one of these."""
        if self.requests == self.root:
            return "" if topic == self.root else None
        rest = topic.removeprefix(f"{self.root}/")
        if rest == topic or not rest or (self.requests.endswith("/+") and "/" in rest):
            return None
        return rest

    def reply_to(self, rest: str) -> str:
        """Return the topic of the reply."""
        return f"{self.replies}/{rest}" if rest else self.replies


def parse_topics(entries: Iterable[str]) -> tuple[Topics, ...]:
    """Read `request-topic=reply-topic[:model]` entries.

    Raises:
        ValueError: naming every fault.

    """
    parsed: list[Topics] = []
    faults: list[str] = []
    for entry in entries:
        requests, _, rest = entry.partition("=")
        replies, colon, model = rest.partition(":")
        if not _FILTER.fullmatch(requests) or not _TOPIC.fullmatch(replies):
            faults.append(f"{entry!r} is not request-topic[/+|/#]=reply-topic[:model]")
        elif colon and not is_model_name(model):
            faults.append(f"{model!r} is not the name of a model")
        else:
            parsed.append(Topics(requests, replies, model))
    listened = [Topics(DETECTION, DETECTION_REPLIES), *parsed]
    for position, topics in enumerate(listened):
        own = listened[position + 1 :]
        faults += [f"{other.requests} and {topics.requests} overlap" for other in own if _meet(topics, other)]
        if topics.replies == MONITOR or any(_answers_into(topics, other) for other in listened):
            faults.append(f"replies on {topics.replies} would be taken for requests or events")
    if faults:
        raise ValueError("; ".join(faults))
    return tuple(parsed)


def _meet(one: Topics, other: Topics) -> bool:
    roots = sorted((one.root, other.root), key=len)
    return roots[0] == roots[1] or any(
        topics.requests.endswith("/#") and f"{beside.root}/".startswith(f"{topics.root}/")
        for topics, beside in ((one, other), (other, one))
    )


def _answers_into(topics: Topics, other: Topics) -> bool:
    return f"{topics.replies}/".startswith(f"{other.root}/")
