"""Prices: whole cents inside, text at the doors."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Self

from caravan.names import cut

NOT_AVAILABLE = "N/A"
CURRENCY = "$"
MAX_CENTS = 10**9
SHOWN = 40
"""Most characters shown of what is no price."""


@dataclass(frozen=True, slots=True)
class Price:
    """A price in cents; None where a product has none."""

    cents: int | None = None

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read `2.99`, `"2.99"` or `"N/A"`.

        Raises:
            ValueError: if it is none of these, negative, or finer than a cent.

        """
        if isinstance(value, str) and value.strip().upper() == NOT_AVAILABLE:
            return cls()
        text = str(value).strip()
        try:
            cents = Decimal("" if "_" in text else text) * 100  # to Decimal 2_99 is a number
        except ArithmeticError as exc:
            raise ValueError(f"a price is a number or {NOT_AVAILABLE!r}, not {cut(text, SHOWN)!r}") from exc
        if not cents.is_finite() or not 0 <= cents <= MAX_CENTS or cents != cents.to_integral_value():
            raise ValueError(f"the price {cut(text, SHOWN)} is negative, too large, or finer than a cent")
        return cls(int(cents))

    def __str__(self) -> str:
        """Print `2.99`, or `N/A`."""
        return NOT_AVAILABLE if self.cents is None else f"{self.cents // 100}.{self.cents % 100:02}"

    @property
    def with_currency(self) -> str:
        """`$2.99`, or `N/A`."""
        return str(self) if self.cents is None else f"{CURRENCY}{self}"
