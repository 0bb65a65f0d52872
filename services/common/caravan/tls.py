"""TLS as a client: which files are wrong is said in a sentence, before anything is connected."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

from caravan.errors import Permanent


@functools.cache
def trusting(ca: Path | None) -> ssl.SSLContext:
    """Return the one context of this process that trusts a PEM file's authorities, or the system's.

    To read the system's takes 50 ms and a megabyte.
    """
    return ssl.create_default_context(cafile=ca)


def verifying(url: str, ca: Path | None = None) -> ssl.SSLContext:
    """Return the context for a server at an address; without `https:` it trusts nobody, and costs nothing."""
    return trusting(ca) if url.lower().startswith("https:") else _nobody()


@functools.cache
def _nobody() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def client_context(
    ca: Path | None, cert: Path | None, key: Path | None, names: tuple[str, str, str]
) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or later that checks the server's certificate and name.

    Args:
        ca: PEM file of the authorities to trust; None for the system's.
        cert: PEM file of a certificate to show, with what links it to its authority; None for none.
        key: PEM file of its key; None if `cert` holds it too.
        names: the user's names of the three.

    Raises:
        Permanent: naming the one that is missing or wrong.

    """
    for path, name in zip((ca, cert, key), names, strict=True):
        if path is not None and not path.is_file():
            raise Permanent(f"{name}: there is no file {path}")
    if key is not None and cert is None:
        raise Permanent(f"{names[2]} is set without {names[1]}: set both, or neither")
    try:
        context = ssl.create_default_context(cafile=ca)
    except (ssl.SSLError, OSError) as exc:
        raise Permanent(f"{names[0]}: {ca} holds no certificates in PEM ({exc})") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert is not None:
        try:
            # Without a password: one that is asked for on a terminal would stop a service for ever.
            context.load_cert_chain(cert, key, password=_no_password)
        except ValueError as exc:
            raise Permanent(f"{names[2]}: the key is encrypted; give it without a password") from exc
        except (ssl.SSLError, OSError) as exc:
            raise Permanent(f"{names[1]}, {names[2]}: {_what_is_wrong(exc, cert, key)}") from exc
    return context


def _no_password() -> str:
    raise ValueError


def _what_is_wrong(exc: OSError, cert: Path, key: Path | None) -> str:
    if isinstance(exc, ssl.SSLError) and exc.reason == "KEY_VALUES_MISMATCH":
        return f"{key or cert} is not the key of {cert}"
    if key is None:
        return f"{cert} does not hold a certificate and its key in PEM ({exc}): set the key too"
    return f"{cert} and {key} are not a certificate and its key in PEM ({exc})"
