"""A certificate authority of one's own, a server's certificate and clients' certificates, as PEM files.

What is there and good for a while stays as it is: only what is missing, near its end, signed by another
authority or lacking a name is made anew. Keys are EC P-256, in files that their owner alone can read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from caravan.files import make_folder, write_file
from local_stack.errors import StackError
from local_stack.tls.names import CA, CLIENT, SERVER

ALWAYS = ("localhost", "127.0.0.1", "::1")
"""Names that the server's certificate always has."""
CA_LIFE, LEAF_LIFE = timedelta(days=3650), timedelta(days=397)
RENEW_BEFORE = timedelta(days=30)
"""A certificate that ends within this time is made anew."""
BACKDATED = timedelta(days=1)
"""How far a certificate is backdated, so that a device whose clock is behind takes it too."""
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HOST = re.compile(
    r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate of a folder, `<name>.pem`, and its key, `<name>.key`. `made` tells a new one."""

    name: str
    pem: Path
    key: Path
    until: datetime
    made: bool


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(
    folder: Path,
    *,
    hosts: Iterable[str] = (),
    clients: Iterable[str] = (CLIENT,),
    force: bool = False,
    now: datetime | None = None,
) -> list[Certificate]:
    """Make what a folder lacks: an authority, a server and so many clients; return them in that order.

    Args:
        folder: made if it is not there.
        hosts: names and addresses of the server, besides those of this machine; those that its certificate
            has already stay.
        clients: names of the clients, which are their common names.
        force: make everything anew, the authority too.
        now: the time, for tests.

    Raises:
        StackError: if a name cannot stand in a certificate, or a file cannot be read or written.

    """
    now = now or datetime.now(UTC)
    wanted = tuple(dict.fromkeys(clients))
    names = _subject_names((*ALWAYS, *hosts))
    faults = [
        f"{name!r} cannot be a client's name: letters, digits, - and _"
        for name in wanted
        if not _CLIENT.fullmatch(name) or name in (CA, SERVER)
    ]
    if faults:
        raise StackError("\n".join(faults))
    try:
        make_folder(folder, 0o700)
        old = None if force else _load(folder, CA)
        authority = old if old is not None and _lasts(old, now) else None
        made = authority is None
        if authority is None:
            authority = _authority(now)
            _save(folder, CA, authority)
        result = [_described(folder, CA, authority, made=made)]
        result.append(_server(folder, authority, names, now, force=force))
        result += [_client(folder, name, authority, now, force=force) for name in wanted]
    except OSError as exc:
        raise StackError(f"the certificates in {folder} cannot be kept: {exc}") from exc
    return result


# --- one certificate --------------------------------------------------------------------------------


def _server(
    folder: Path, authority: _Pair, names: Sequence[x509.GeneralName], now: datetime, *, force: bool
) -> Certificate:
    pair = None if force else _good(folder, SERVER, authority, now)
    has = _names_of(pair.certificate) if pair is not None else []
    made = pair is None or not set(names) <= set(has)
    if pair is None or made:
        pair = _leaf(SERVER, authority, list(dict.fromkeys([*names, *has])), now)
        _save(folder, SERVER, pair)
    return _described(folder, SERVER, pair, made=made)


def _client(folder: Path, name: str, authority: _Pair, now: datetime, *, force: bool) -> Certificate:
    pair = None if force else _good(folder, name, authority, now)
    made = pair is None
    if pair is None:
        pair = _leaf(name, authority, [], now)
        _save(folder, name, pair)
    return _described(folder, name, pair, made=made)


def _authority(now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # Its name has its key in it: two authorities of this kind are told apart by whoever trusts one of them.
    short = x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:12]
    name = _name(f"Caravan local CA {short}")
    usage = _usage(signs_certificates=True)
    certificate = (
        _builder(name, name, key, now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Pair(certificate, key)


def _leaf(name: str, authority: _Pair, names: Sequence[x509.GeneralName], now: datetime) -> _Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = authority.certificate
    until = min(now + LEAF_LIFE, issuer.not_valid_after_utc)
    purpose = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_name(f"Caravan {name}" if names else name), issuer.subject, key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return _Pair(builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# --- names ------------------------------------------------------------------------------------------


def _subject_names(hosts: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    faults = []
    for host in dict.fromkeys(hosts):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            if _HOST.fullmatch(host):
                names.append(x509.DNSName(host.lower()))
            else:
                faults.append(f"{host!r} is neither a host's name nor an address")
    if faults:
        raise StackError("\n".join(faults))
    return list(dict.fromkeys(names))


def _names_of(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


# --- files ------------------------------------------------------------------------------------------


def _good(folder: Path, name: str, authority: _Pair, now: datetime) -> _Pair | None:
    """Return a pair that is there, lasts and is of this authority."""
    pair = _load(folder, name)
    if pair is None or not _lasts(pair, now):
        return None
    try:
        pair.certificate.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, ValueError, TypeError):
        return None
    return pair


def _lasts(pair: _Pair, now: datetime) -> bool:
    return pair.certificate.not_valid_after_utc - now > RENEW_BEFORE


def _load(folder: Path, name: str) -> _Pair | None:
    """Return a certificate and its key; None if one is missing, or they do not belong together."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())
        key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
    except (FileNotFoundError, ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        return None
    return _Pair(certificate, key)


def _save(folder: Path, name: str, pair: _Pair) -> None:
    key = pair.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_file(folder / f"{name}.key", key)
    write_file(folder / f"{name}.pem", pair.certificate.public_bytes(Encoding.PEM), mode=0o644)


def _described(folder: Path, name: str, pair: _Pair, *, made: bool) -> Certificate:
    until = pair.certificate.not_valid_after_utc
    return Certificate(name, folder / f"{name}.pem", folder / f"{name}.key", until, made)
