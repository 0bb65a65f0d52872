"""Bearer tokens: several, each with a name; none configured means that the door is open."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings

from caravan.errors import BadInput
from caravan.settings import HeaderSecret, OptionalPath

ANYONE = "anyone"
"""Holder at a door without tokens."""

_ENTRY = re.compile(r"([A-Za-z0-9_.-]{1,64}):([\x21-\x7e]{8,512})")


class Tokens:
    """The tokens that open a door.

    Args:
        by_name: the token of each holder; empty for an open door.

    """

    def __init__(self, by_name: Mapping[str, str]) -> None:
        self._by_name = {name: token.encode() for name, token in by_name.items()}

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Self:
        """Read `name:token` entries.

        Raises:
            ValueError: if one has another form or a name comes twice; tokens are not shown.

        """
        by_name: dict[str, str] = {}
        for number, entry in enumerate(entries, 1):
            match = _ENTRY.fullmatch(entry)
            if match is None:
                message = f"entry {number} is not name:token, with a token of at least 8 visible characters"
                raise ValueError(message)
            if match[1] in by_name:
                message = f"the name {match[1]!r} has two tokens"
                raise ValueError(message)
            by_name[match[1]] = match[2]
        return cls(by_name)

    def __bool__(self) -> bool:
        return bool(self._by_name)

    @property
    def first(self) -> str:
        """The first token, or nothing: what a client of the same stack shows."""
        return next(iter(self._by_name.values()), b"").decode()

    def seal(self, name: str, text: str) -> str:
        """Return what only this holder's token can make of a text; empty if there is no such holder."""
        token = self._by_name.get(name)
        return "" if token is None else hmac.new(token, text.encode(), hashlib.sha256).hexdigest()

    def holder(self, authorization: str | None) -> str:
        """Return the name of the token's holder, given an `Authorization` header.

        Raises:
            BadInput: 401 if there is none, or its token is not known.

        """
        if not self._by_name:
            return ANYONE
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            message = "a token is needed: send the header Authorization: Bearer <token>"
            raise BadInput(message, 401, reason="no-token")
        given = token.strip().encode(errors="surrogateescape")
        # All are compared, each in constant time: how long it takes tells nothing.
        known = [name for name, own in self._by_name.items() if hmac.compare_digest(own, given)]
        if not known:
            raise BadInput("this token is not known", 401, reason="wrong-token")
        return known[0]


class TokenSettings(BaseSettings):
    """Tokens of the detection doors and of the model server, and the one that their clients show.

    `TOKENS` alone switches it all on: a client without a token of its own shows the first.
    """

    tokens: SecretStr = SecretStr("")
    """`name:token` entries, separated by spaces or commas."""
    tokens_file: OptionalPath = None
    """The same, one on each line; used beside `TOKENS`."""
    tfserving_token: HeaderSecret = SecretStr("")
    """Token for the model server; the first of the tokens if empty."""

    @field_validator("tokens")
    @classmethod
    def _readable(cls, value: SecretStr) -> SecretStr:
        Tokens.parse(_words(value))
        return value

    @field_validator("tokens_file")
    @classmethod
    def _readable_file(cls, path: Path | None) -> Path | None:
        if path is not None:
            try:
                Tokens.parse(_lines(path))
            except (OSError, UnicodeDecodeError) as exc:
                message = f"{path} cannot be read: {exc}"
                raise ValueError(message) from exc
        return path

    @property
    def door(self) -> Tokens:
        """The tokens in force; reads the file."""
        entries = [*_words(self.tokens), *(_lines(self.tokens_file) if self.tokens_file else [])]
        return Tokens.parse(entries)

    @property
    def token_to_show(self) -> str:
        """What a client shows to the model server; empty for nothing."""
        return self.tfserving_token.get_secret_value() or self.door.first


def _words(value: SecretStr) -> list[str]:
    return value.get_secret_value().replace(",", " ").split()


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]
