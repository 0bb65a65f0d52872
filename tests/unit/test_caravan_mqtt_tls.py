"""MQTT over TLS as the services see it: which setting is wrong is said before anything is connected."""

import re
import ssl
from pathlib import Path

import pytest
import trustme

from caravan.settings import MqttSettings, load


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("one", "two"):
        leaf = authority.issue_cert(f"{name}.example.org")
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        leaf.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}-both.pem")
    (folder / "text").write_text("no certificate")
    return folder


def test_plain_without_files_and_tls_1_2_with_one(files: Path) -> None:
    assert MqttSettings().mqtt_tls() is None
    context = MqttSettings(mqtt_tls_ca=files / "ca.pem").mqtt_tls()
    assert context is not None
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.check_hostname


def test_key_and_certificate_may_be_in_one_file(files: Path) -> None:
    assert MqttSettings(mqtt_tls_ca=files / "ca.pem", mqtt_tls_cert=files / "one-both.pem").mqtt_tls()


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"MQTT_TLS_CA": "absent"}, "MQTT_TLS_CA: there is no file"),
        ({"MQTT_TLS_CA": "text"}, "MQTT_TLS_CA: .*no certificates"),
        ({"MQTT_TLS_KEY": "one.key"}, "MQTT_TLS_KEY is set without MQTT_TLS_CERT"),
        ({"MQTT_TLS_CA": "ca.pem", "MQTT_TLS_CERT": "one.pem"}, "set the key too"),
        (
            {"MQTT_TLS_CA": "ca.pem", "MQTT_TLS_CERT": "one.pem", "MQTT_TLS_KEY": "two.key"},
            "two.key is not the key of",
        ),
        ({"MQTT_TLS_CERT": "text", "MQTT_TLS_KEY": "one.key"}, "not a certificate and its key"),
    ],
)
def test_a_wrong_file_ends_the_start_with_one_line_that_names_its_setting(
    files: Path,
    environment: dict[str, str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, file in environment.items():
        monkeypatch.setenv(name, str(files / file))
    with pytest.raises(SystemExit) as ended:
        load(MqttSettings)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert re.search(said, line)
