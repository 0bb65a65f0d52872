"""Events for the dashboard, as its contract has them."""

from __future__ import annotations

from caravan.contracts import Event
from shopper.canary.notes import Comparison
from shopper.catalogue import Product
from shopper.detection import Recognition
from shopper.ports import Sender


def detection(recognition: Recognition, sender: Sender) -> Event:
    """Tell that an image was answered; `item` is the label, `valid` whether it was known."""
    return {
        "origin": sender.origin,
        "valid": recognition.known,
        "item": recognition.product.label,
        "price": recognition.product.price.with_currency,
        "name": "detection",
        "score": round(recognition.prediction.score, 4),
        "model": recognition.prediction.model,
        "version": recognition.prediction.version,
    }


def canary(comparison: Comparison) -> Event:
    """Tell that a new version was found to be worse than the one before, or not to be."""
    seen = comparison.evidence
    return {
        "name": "canary",
        "model": seen.model,
        "version": seen.version,
        "beside": seen.beside,
        "outcome": comparison.outcome,
        "reason": comparison.verdict.says,
    }


def ingestion(product: Product, sender: Sender) -> Event:
    """Tell that a training image was taken in."""
    return {
        "origin": sender.origin,
        "valid": True,
        "item": product.label,
        "price": product.price.with_currency,
        "name": "ingestion",
    }


def zipdata(files: int) -> Event:
    """Tell that so many training images were collected into a ZIP."""
    return {"name": "zipdata", "files": str(files)}


def zipsend(files: int) -> Event:
    """Tell that a ZIP of so many training images is safe at central."""
    return {"name": "zipsend", "files": str(files)}
