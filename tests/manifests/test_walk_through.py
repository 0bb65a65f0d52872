"""What the pages on deployment tell people to type is about what is really there."""

import re
import textwrap

import pytest
import yaml

from support import compose
from support.cluster import Cluster, secrets
from support.dockerfiles import IMAGES, ROOT
from support.manifests import invalid
from support.overlays import NAMES, rendered

PAGE = (ROOT / "docs" / "deploy.md").read_text()
COMPOSE = (ROOT / "infra" / "compose" / "README.md").read_text()
SIDES = {"C": "central", "E": "edge1"}
KINDS = {"deployment": "Deployment", "statefulset": "StatefulSet", "service": "Service", "kafka": "Kafka"}


def side(letter: str) -> Cluster:
    return rendered(SIDES[letter])


@pytest.mark.parametrize("step", re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:], ids=lambda s: str(s[:1]))
def test_each_step_says_how_to_check_it_and_how_to_take_it_away(step: str) -> None:
    assert re.search(r"\bcheck\b", step, re.IGNORECASE)
    assert "Take away" in step


def test_the_two_variables_are_the_namespaces_of_the_two_overlays() -> None:
    for letter, overlay in SIDES.items():
        assert f'{letter}="kubectl --context {overlay.rstrip("1")} -n {overlay}"' in PAGE
        assert {obj["metadata"].get("namespace") for obj in rendered(overlay).of("Service")} == {overlay}


def test_every_command_is_about_an_object_that_there_is() -> None:
    found = re.findall(r"\$([CE])\b([^\n]*?) (\w+)/([\w-]+)", PAGE)
    assert {kind for *_, kind, _ in found} > KINDS.keys()
    for letter, _, kind, name in found:
        if kind in KINDS:
            assert side(letter).named(KINDS[kind], name) is not None, f"${letter} {kind}/{name}"
    for letter, name in re.findall(r"\$([CE]) \w+ accessgrant[ /](\w+)", PAGE):
        assert side(letter).named("AccessGrant", name) is not None


def test_ports_are_those_of_the_services_and_what_is_asked_afterwards() -> None:
    forwarded = re.findall(r"\$([CE]) port-forward service/([\w-]+) (\d+)", PAGE)
    assert forwarded
    for letter, name, port in forwarded:
        service = side(letter).named("Service", name)
        assert service is not None
        assert int(port) in {entry["port"] for entry in service["spec"]["ports"]}
    asked = set(re.findall(r"http://localhost:(\d+)", PAGE))
    assert asked == {port for *_, port in forwarded}


def test_secrets_that_are_read_are_strimzis_or_made_before() -> None:
    for letter, name in re.findall(r"\$([CE]) get secret ([\w-]+)", PAGE):
        users = {user["metadata"]["name"] for user in side(letter).of("KafkaUser")}
        made = re.search(rf"\${letter} create secret generic {name}\b", PAGE) is not None
        assert made or name in users or name == "caravan-cluster-ca-cert", name


@pytest.mark.parametrize("overlay", NAMES)
def test_the_secrets_that_somebody_has_to_make_are_made_with_the_keys_that_are_asked(overlay: str) -> None:
    letter = "C" if "central" in overlay else "E"
    for name, keys in secrets(rendered(overlay)).items():
        command = re.search(rf"\${letter} create secret generic {name}\b((?:\\\n|[^\n])*)", PAGE)
        assert command is not None, name
        given = set(re.findall(r"--from-(?:literal|file)=([\w.-]+)", command[1]))
        assert keys <= given, f"{name}: {keys - given}"


def test_files_and_folders_that_the_page_names_are_there() -> None:
    paths = re.findall(r"infra/kubernetes/[\w./-]*[\w-]", PAGE)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists() and "edge3" not in path] == []
    components = re.findall(r"^\| (`.+?`) \|", PAGE.split("## 8.")[1], re.MULTILINE)
    named = {name for cell in components for name in re.findall(r"`([\w/-]+)`", cell)}
    folder = ROOT / "infra/kubernetes/components"
    there = {str(p.parent.relative_to(folder)) for p in folder.rglob("kustomization.yaml")}
    inner = {
        "hardening",
        "images",
        "openshift-user-ids",
        "edge-name",
        "one-node",
        "site-name",
    }  # which the bases and others use
    assert named == there - inner


def test_images_that_are_pushed_are_those_that_are_built() -> None:
    (names,) = re.findall(r"for i in ([\w -]+); do", PAGE)
    assert set(names.split()) == set(IMAGES)


def test_the_rollback_is_a_valid_run_of_a_task_that_there_is() -> None:
    (text,) = re.findall(r"<<'END'\n(.*?)\n    END", PAGE, re.DOTALL)
    run = yaml.safe_load(textwrap.dedent(text))
    task = rendered("central").named("Task", run["spec"]["taskRef"]["name"])
    assert invalid(run) == []
    assert task is not None
    assert {p["name"] for p in run["spec"]["params"]} == {p["name"] for p in task["spec"]["params"]}
    account = run["spec"]["serviceAccountName"]
    assert rendered("central").named("ServiceAccount", account) is not None


def test_the_new_edge_of_the_page_is_the_overlay_of_another_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    overlay = ROOT / "infra/kubernetes/overlays/edge2/kustomization.yaml"
    assert text.replace("edge3", "edge2") == overlay.read_text()


def test_the_page_on_compose_names_services_profiles_and_ports_that_there_are() -> None:
    services = compose.load("compose.yaml")["services"]
    named = re.findall(r"docker compose (?:exec|logs -f|run --rm) ([\w-]+)", COMPOSE)
    assert named
    assert set(named) <= services.keys()
    profiles = set(re.findall(r"--profile (\w+)", COMPOSE))
    assert profiles | {"cli"} == {name for each in services.values() for name in each.get("profiles", ())}
    published = {port.split(":")[1] for service in services.values() for port in service.get("ports", ())}
    asked = set(re.findall(r"http://localhost:(\d+)", COMPOSE))
    assert {"8080", "8081", "8086"} <= asked <= published
