"""What can go wrong in the demo."""

from __future__ import annotations

from caravan.errors import CaravanError


class NotShown(CaravanError):
    """Something that the demo claims did not happen; the text says what, plainly."""


class UnfitPhotos(CaravanError):
    """The user's ZIPs cannot be used for the demo; the text says why and what is needed."""


class BadAnswer(CaravanError):
    """A door answered with something else than its contract says."""
