"""Proxies of the user's environment are for what lies outside: the stack's own parts are on loopback."""

from __future__ import annotations

from collections.abc import Mapping

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SPELLINGS = ("no_proxy", "NO_PROXY")
"""Programs differ in which they read, and some read both."""


def past_proxies(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what has programs reach loopback without a proxy, beside what they do so already."""
    given = [host.strip() for name in SPELLINGS for host in environment.get(name, "").split(",")]
    hosts = ",".join(dict.fromkeys(filter(None, [*given, *LOOPBACK])))
    return dict.fromkeys(SPELLINGS, hosts)
