"""What a sender is told when something fails: problem documents (RFC 9457), the same at every door."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from caravan.errors import BadInput, CaravanError, Refused, Transient, Unavailable

Problem = dict[str, Any]

RETRY_AFTER_SECONDS = 5
"""Seconds of `Retry-After` in a 503."""


def problem(status: int, detail: str, **members: object) -> Problem:
    """Return a problem document: `type`, `title`, `status`, `detail`, and members of one's own."""
    title = HTTPStatus(status).phrase
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}


def problem_of(exc: CaravanError) -> Problem:
    """Return the problem document of an error, which says no more than the sender may know."""
    match exc:
        case BadInput() | Unavailable():
            return problem(exc.status, exc.detail)
        case Transient():
            return problem(503, "a system behind this service is away: try again")
        case Refused():
            return problem(502, exc.detail)
        case _:
            return problem(502, "a system behind this service refused")


def unexpected(exc: Exception) -> Problem:
    """Return the problem document of a fault of ours: its kind, and nothing of its content."""
    return problem(500, f"an unexpected error: {type(exc).__name__}")
