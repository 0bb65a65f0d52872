"""One error tree; adapters translate into it, entry points map it to answers.

CaravanError
├── Transient        may work later: a broker is away, a deadline passed
│   └── Unavailable  and the sender may know why: carries the HTTP status of the answer
└── Permanent        trying again will not help
    ├── Refused      another service said no, and the sender may know why
    └── BadInput     the sender can mend it: carries the HTTP status of the answer
"""

from __future__ import annotations

from http import HTTPStatus


class CaravanError(Exception):
    """Root of every error that Caravan raises on purpose."""


class Transient(CaravanError):
    """The same call may succeed later."""


class Unavailable(Transient):
    """May work later, and the sender may know why.

    Args:
        detail: one sentence for the sender, free of internals.
        status: the HTTP status that fits, 5xx.

    """

    def __init__(self, detail: str, status: int = 503) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status


class Permanent(CaravanError):
    """The same call will fail again; its message says why."""


class Refused(Permanent):
    """Another service said no; `detail` is its reason, which the sender may know."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class BadInput(Permanent):
    """Input that its sender must change.

    Args:
        detail: one sentence for the sender, free of internals.
        status: the HTTP status that fits, 4xx.
        reason: what was wrong in a word or three (`not-msgpack`), one of few, for counting; the status'
            own phrase where that says enough.

    """

    def __init__(self, detail: str, status: int = 400, *, reason: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.status = status
        self.reason = reason or HTTPStatus(status).phrase.lower().replace(" ", "-")
