"""The keys of the stack's S3 servers: those that the services show to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Self
from urllib.parse import quote

from pydantic import SecretStr

from caravan.settings import CentralS3Settings, S3Address

USER, PASSWORD = "caravan", "caravan-secret"
"""Whom the services say they are where nobody says otherwise."""
REGION = CentralS3Settings.model_fields["s3_central_region"].default


@dataclass(frozen=True, slots=True)
class Keys:
    """One pair: `user` and `secret`."""

    user: str
    secret: str = field(repr=False)

    @classmethod
    def of(cls, side: Literal["CENTRAL", "EDGE"], environment: Mapping[str, str]) -> Self:
        """Return the pair of a side's servers, as the services' settings have it."""
        user = environment.get(f"S3_{side}_ACCESS_KEY") or USER
        return cls(user, environment.get(f"S3_{side}_SECRET_KEY") or PASSWORD)

    @property
    def in_url(self) -> str:
        """The pair as the user of an address."""
        return f"{quote(self.user, safe='')}:{quote(self.secret, safe='')}"

    def address(self, url: str) -> S3Address:
        """Return how to reach a server."""
        return S3Address(url, SecretStr(self.user), SecretStr(self.secret), REGION, None)
