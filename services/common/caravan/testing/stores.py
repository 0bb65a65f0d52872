"""What is asked of an object store: noted, and failing as a test has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from caravan.testing.faults import Faults


class Patch(Protocol):
    """What replaces a function until a test is over, as pytest's `monkeypatch` does."""

    def setattr(self, target: Any, name: str, value: object) -> None:
        """Replace an attribute."""


class Requests(Faults[str]):
    """Stands before functions that ask a store: `Requests(monkeypatch, s3, "write")`.

    A request is told by its key: the second argument, or `prefix`, as in `caravan.s3` and `obstore`.

    Attributes:
        keys: of the requests that passed, in order.

    """

    def __init__(self, patch: Patch, module: Any, *functions: str) -> None:
        super().__init__()
        self.keys: list[str] = []
        for name in functions:
            patch.setattr(module, name, self._before(getattr(module, name)))

    def _before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def asked(*args: Any, **options: Any) -> Any:
            key = args[1] if len(args) > 1 else options.get("prefix") or ""
            self.strike(key)
            self.keys.append(key)
            return real(*args, **options)

        return asked
