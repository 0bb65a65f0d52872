"""The data sets that have a name, and the model that each is for."""

from __future__ import annotations

from caravan.contracts import DEFAULT_MODEL
from lab.samples import apparel

RENDERED, DIGITS, FASHION = "rendered", "digits", "fashion"


def models(model: str, data: str, over: str, own: str = "") -> tuple[str, str]:
    """Return the model to name in requests, and the one that has to serve for them.

    Args:
        model: the one that was asked for; "" for what fits.
        data: a data set's name, or a path.
        over: the way to the shopper.
        own: the model of the shopper's doors, "" for the one that the pipeline trains by default.

    Returns:
        The first is "" where the door asks the second by itself.

    """
    own = own or DEFAULT_MODEL
    if model or data == FASHION:
        return (model or apparel.MODEL,) * 2
    if over != "tensor":
        return "", own
    return (own, own) if data in {RENDERED, DIGITS} else ("", apparel.MODEL)
