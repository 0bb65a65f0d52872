"""`make certs`: certificates that ordinary TLS accepts, and that stay as they are."""

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store
from typer.testing import CliRunner

from local_stack.cli import app
from local_stack.errors import StackError
from local_stack.tls.certificates import ensure
from local_stack.tls.names import complete

NOW = datetime.now(UTC)


def load(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_server_and_clients_are_good_by_the_rules_of_the_web(tmp_path: Path) -> None:
    ensure(tmp_path, hosts=["shop.example.org", "10.0.0.7"], clients=["client", "till-3"])
    policy = PolicyBuilder().store(Store([load(tmp_path, "ca")]))
    for host in ("localhost", "shop.example.org"):
        policy.build_server_verifier(x509.DNSName(host)).verify(load(tmp_path, "server"), [])
    for address in ("127.0.0.1", "::1", "10.0.0.7"):
        name = x509.IPAddress(ipaddress.ip_address(address))
        policy.build_server_verifier(name).verify(load(tmp_path, "server"), [])
    assert purposes(load(tmp_path, "server")) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for client in ("client", "till-3"):
        certificate = load(tmp_path, client)
        assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert certificate.subject.rfc4514_string() == f"CN={client}"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tmp_path / "ca.pem")
    context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")


def test_keys_can_be_read_by_their_owner_alone(tmp_path: Path) -> None:
    ensure(tmp_path / "certs")
    assert complete(tmp_path / "certs")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "certs").iterdir()}
    assert {mode for name, mode in modes.items() if name.endswith(".key")} == {0o600}
    assert stat.S_IMODE((tmp_path / "certs").stat().st_mode) == 0o700


def test_what_is_there_stays_until_its_end_is_near_or_it_lacks_a_name(tmp_path: Path) -> None:
    def made(**options: object) -> list[str]:
        return [one.name for one in ensure(tmp_path, **options) if one.made]  # type: ignore[arg-type]

    assert made() == ["ca", "server", "client"]
    assert made() == []
    assert made(clients=["client", "till-3"]) == ["till-3"]
    assert made(hosts=["shop"]) == ["server"]
    assert made(hosts=["other"]) == ["server"]
    assert made(hosts=["shop"]) == []  # it keeps the names that it has
    assert made(now=NOW + timedelta(days=380)) == ["server", "client"]
    assert made(force=True) == ["ca", "server", "client"]
    assert made(now=NOW + timedelta(days=3640)) == ["ca", "server", "client"]


def test_a_key_that_is_anothers_and_a_certificate_of_another_authority_are_replaced(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ensure(ours)
    ensure(theirs)
    (ours / "client.key").write_bytes((ours / "server.key").read_bytes())
    for kind in ("pem", "key"):
        (ours / f"server.{kind}").write_bytes((theirs / f"server.{kind}").read_bytes())
    assert [one.name for one in ensure(ours) if one.made] == ["server", "client"]
    load(ours, "server").verify_directly_issued_by(load(ours, "ca"))


@pytest.mark.parametrize(
    ("hosts", "clients"), [(["a b"], ["client"]), (["-a"], ["client"]), ([], ["../x"]), ([], ["ca"])]
)
def test_names_that_cannot_stand_in_a_certificate_or_a_path_are_refused(
    tmp_path: Path, hosts: list[str], clients: list[str]
) -> None:
    with pytest.raises(StackError):
        ensure(tmp_path / "certs", hosts=hosts, clients=clients)
    assert not (tmp_path / "certs").exists()


def test_the_command_tells_what_to_do_next(tmp_path: Path) -> None:
    words = ["certs", "--out", str(tmp_path / "out"), "--client", "till-3"]
    result = CliRunner().invoke(app, words, env={"MQTT_TLS": "required"})
    assert result.exit_code == 0
    for said in ("made", "till-3", "mosquitto_pub", "MQTT_TLS_CA=", "make start"):
        assert said in result.output
    assert "PRIVATE" not in result.output
