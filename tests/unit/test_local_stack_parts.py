"""The table of parts, and what is made of it."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from caravan.settings import ServiceSettings, load
from delivery.settings import DeliverySettings
from edge_manager.settings import EdgeManagerSettings
from feeder.settings import FeederSettings
from local_stack.cli import app
from local_stack.errors import StackError
from local_stack.parts import PARTS
from local_stack.plan import Plan
from local_stack.ports import plan_ports
from local_stack.settings import StackSettings, port_settings
from local_stack.supervisor import exit_reason, waves
from local_stack.tls.certificates import ensure
from monitor.settings import MonitorSettings
from shopper.settings import ShopperSettings

README = Path(__file__).parents[2] / "infra" / "local" / "README.md"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    settings = StackSettings(tmp_path, ("edge1", "edge2"), free_ports=True)
    return Plan(settings, plan_ports(settings, lambda _: ""))


def test_every_part_needs_only_parts_above_it() -> None:
    for index, part in enumerate(PARTS):
        assert {*part.after, *part.beside} <= {above.name for above in PARTS[:index]}


def test_every_text_of_the_table_can_be_filled_in(plan: Plan) -> None:
    for part in plan.parts.values():
        texts = [*part.command, part.probe, part.address, *part.buckets, *part.own_environment.values()]
        texts += [text for _, text in part.files]
        texts += map(str, part.litter)
        assert not [text for text in texts if "{" in text and "= {" not in text]


def test_a_part_of_an_edge_talks_to_its_own_edge(plan: Plan) -> None:
    shopper = plan.parts["shopper-edge2"].own_environment
    assert shopper["EDGE"] == "edge2"
    assert shopper["MQTT_PORT"] == str(plan.ports["mqtt-edge2"]["mqtt5"])
    assert shopper["S3_EDGE_ENDPOINT"] == f"http://127.0.0.1:{plan.ports['s3-edge2']['s3']}"
    assert shopper["S3_CENTRAL_ENDPOINT"] == f"http://127.0.0.1:{plan.ports['s3-central']['s3']}"
    assert plan.parts["shopper-edge2"].after == ("s3-edge2", "mqtt-edge2", "model-server-edge2")


@pytest.mark.parametrize(
    ("service", "settings"),
    [
        ("delivery", DeliverySettings),
        ("edge-manager-edge1", EdgeManagerSettings),
        ("feeder", FeederSettings),
        ("monitor-edge1", MonitorSettings),
        ("shopper-edge1", ShopperSettings),
    ],
)
def test_a_service_takes_its_settings_where_it_runs_alone(
    service: str, settings: type[ServiceSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"CARAVAN_HOME": str(tmp_path), "PORTS": "free", "PARTS": service.removesuffix("-edge1")}
    chosen = StackSettings.read(environment)
    plan = Plan(chosen, plan_ports(chosen, lambda _: ""))
    for name, value in plan.parts[service].own_environment.items():
        monkeypatch.setenv(name, value)
    assert isinstance(load(settings), settings)


def test_central_has_the_buckets_of_every_edge_and_each_edge_its_own(plan: Plan) -> None:
    assert plan.parts["s3-central"].buckets == (
        "kafka", "edge1-data", "edge1-models", "edge1-ready", "edge2-data", "edge2-models", "edge2-ready",
    )  # fmt: skip
    assert plan.parts["s3-edge2"].buckets == ("production", "data", "valid", "unclassified")


def test_each_s3_server_takes_the_keys_that_the_services_show(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S3_CENTRAL_ACCESS_KEY", "me")
    monkeypatch.setenv("S3_CENTRAL_SECRET_KEY", "my-secret")
    parts = Plan(plan.settings, plan.ports).parts
    keys = {
        name: tuple(
            parts[name].own_environment[key] for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        )
        for name in ("s3-central", "kafka", "s3-edge2", "model-server-edge2")
    }
    ours = ("caravan", "caravan-secret")
    assert keys == {
        "s3-central": ("me", "my-secret"),
        "kafka": ("me", "my-secret"),
        "s3-edge2": ours,
        "model-server-edge2": ours,
    }


def test_parts_reach_each_other_without_the_users_proxy(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "10.0.0.1")
    monkeypatch.setenv("NO_PROXY", "example.org, localhost")
    for part in plan.parts.values():
        for name in ("no_proxy", "NO_PROXY"):
            assert part.environment[name] == "10.0.0.1,example.org,localhost,127.0.0.1,::1"
    assert plan.parts["shopper-edge1"].environment["http_proxy"] == "http://127.0.0.1:9"


def test_services_write_their_traces_into_files_of_the_stack_unless_the_user_says_otherwise(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRACES", raising=False)
    environment = plan.parts["shopper-edge2"].environment
    assert environment["TRACES"] == "file"
    assert environment["TRACES_FILE"] == str(tmp_path / "traces" / "shopper-edge2.jsonl")
    monkeypatch.setenv("TRACES", "off")
    assert plan.parts["shopper-edge2"].environment["TRACES"] == "off"


def test_the_table_goes_before_the_users_environment(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("SCORE_ACCURACY", "0.7")
    environment = plan.parts["shopper-edge1"].environment
    assert environment["PORT"] == str(plan.ports["shopper-edge1"]["http"])
    assert environment["SCORE_ACCURACY"] == "0.7"


def test_the_s3_servers_never_see_the_users_keys(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    # With those in its environment, SeaweedFS would refuse the services'.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "AKIA")
    environment = plan.parts["s3-central"].environment
    assert environment["AWS_ACCESS_KEY_ID"] == "caravan"
    assert "AWS_SESSION_TOKEN" not in environment


def test_every_server_listens_on_loopback_alone(plan: Plan) -> None:
    for part in plan.parts.values():
        everything = " ".join(
            [*part.command, *part.own_environment.values(), *(text for _, text in part.files)]
        )
        assert "0.0.0.0" not in everything
        assert "localhost" not in everything
    assert plan.parts["feeder"].own_environment["HOST"] == "127.0.0.1"


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    ensure(tmp_path / "certs")
    return tmp_path / "certs"


def planned(home: Path, **environment: str) -> Plan:
    settings = StackSettings.read({"CARAVAN_HOME": str(home), "PORTS": "free", **environment})
    return Plan(settings, plan_ports(settings, lambda _: ""))


def test_without_certificates_there_is_no_door_with_tls(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    assert not [name for name in plan.parts if "tls" in name]
    assert plan.parts["shopper-edge1"].own_environment["MQTT_TLS_CA"] == ""


def test_with_certificates_every_edge_has_a_door_and_the_services_stay_plain(certs: Path) -> None:
    plan = planned(certs.parent, EDGES="edge1 edge2")
    door = plan.parts["mqtt-tls-edge2"]
    assert f"127.0.0.1:{plan.ports['mqtt-edge2']['mqtt']}" in door.command
    assert str(certs) in door.command
    shopper = plan.parts["shopper-edge2"].own_environment
    assert shopper["MQTT_PORT"] == str(plan.ports["mqtt-edge2"]["mqtt5"])
    assert shopper["MQTT_TLS_CA"] == ""
    assert not [name for name in planned(certs.parent, MQTT_TLS="off").parts if "tls" in name]


def test_where_tls_is_required_the_services_take_the_door_with_a_certificate(certs: Path) -> None:
    plan = planned(certs.parent, MQTT_TLS="required")
    for service in ("shopper", "monitor", "edge-manager"):
        part = plan.parts[f"{service}-edge1"]
        assert part.own_environment["MQTT_PORT"] == str(plan.ports["mqtt-tls-edge1"]["mqtts"])
        assert part.own_environment["MQTT_TLS_CERT"] == str(certs / "client.pem")
        assert "mqtt-tls-edge1" in part.after
    assert StackSettings.read(plan.settings.environment()).tls == "required"


def test_tls_without_certificates_is_refused_with_what_to_do(tmp_path: Path) -> None:
    settings = StackSettings.read({"CARAVAN_HOME": str(tmp_path), "MQTT_TLS": "required"})
    with pytest.raises(StackError, match="make certs"):
        settings.prepare()
    with pytest.raises(StackError, match="MQTT_TLS"):
        StackSettings.read({"MQTT_TLS": "perhaps"})


def test_a_folder_with_a_space_stays_one_word(tmp_path: Path) -> None:
    settings = StackSettings(tmp_path / "my home", free_ports=True)
    plan = Plan(settings, plan_ports(settings, lambda _: ""))
    assert f"-dir={tmp_path}/my home/data/s3-central" in plan.parts["s3-central"].command


def test_waves_start_what_others_need_first(plan: Plan) -> None:
    depth = {part.name: level for level, wave in enumerate(waves(list(plan.parts.values()))) for part in wave}
    assert depth["s3-central"] == depth["s3-edge1"] == depth["mqtt-edge2"] == 0
    assert depth["s3-central"] < depth["kafka"] < depth["feeder"]
    assert depth["s3-edge1"] < depth["shopper-edge1"]


def test_the_end_of_a_process_is_told_in_words() -> None:
    assert exit_reason(3) == "exit code 3"
    assert exit_reason(-9) == "killed by SIGKILL"


def test_help_and_readme_name_every_port_setting_with_its_default() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    helped = {name: int(port) for name, port in re.findall(r"([A-Z0-9_]+_PORT) (\d+)", shown)}
    listed = {
        name: int(port)
        for name, port in re.findall(r"^\| `(\w+_PORT)` \| `(\d+)` \|", README.read_text(), re.MULTILINE)
    }
    assert helped == listed == port_settings()


def test_a_site_of_central_runs_central_alone_for_all_edges(tmp_path: Path) -> None:
    plan = planned(tmp_path, SITE="central", EDGES="edge1 edge2")
    assert {part.edge for part in plan.parts.values()} == {None}
    assert plan.parts["hub"].own_environment["EDGES"] == "edge1 edge2"
    assert "edge2-ready" in plan.parts["s3-central"].buckets


def test_a_site_of_an_edge_reaches_central_where_a_link_shows_it(tmp_path: Path) -> None:
    plan = planned(tmp_path, SITE="edge", EDGES="shop7", KAFKA_PORT="19092")
    assert {part.edge for part in plan.parts.values()} == {"shop7"}
    assert {"s3-shop7", "mqtt-shop7", "shopper-shop7", "edge-manager-shop7"} <= plan.parts.keys()
    shopper = plan.parts["shopper-shop7"].own_environment
    assert shopper["S3_CENTRAL_ENDPOINT"] == "http://127.0.0.1:9000"
    assert shopper["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:19092"
    assert shopper["FEEDER_URL"] == "http://127.0.0.1:8081"
    assert shopper["S3_EDGE_ENDPOINT"] == f"http://127.0.0.1:{plan.ports['s3-shop7']['s3']}"


def test_a_part_of_an_edge_is_up_without_central_only_where_a_link_may_be_down(tmp_path: Path) -> None:
    alone, beside = planned(tmp_path, SITE="edge"), planned(tmp_path)
    assert alone.parts["edge-manager-edge1"].does_without == {"s3-central"}
    assert alone.parts["monitor-edge1"].does_without == {"kafka"}
    assert not [part.name for part in beside.parts.values() if part.does_without]
