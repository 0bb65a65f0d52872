"""What the outside sees of the project: its workflows, templates, hooks and papers hang together."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOW = (ROOT / ".github/workflows/ci.yml").read_text()
CI = (ROOT / ".ci/run").read_text()
PAPERS = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "LICENSE", "SECURITY.md")


def made(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)", text))


def test_the_workflow_makes_all_that_must_pass_on_a_clean_checkout() -> None:
    assert made(CI) - made(WORKFLOW) == set()


def test_the_workflow_makes_only_what_there_is_to_make() -> None:
    targets = set(re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert made(WORKFLOW) - targets == set()


def test_every_python_that_is_supported_is_checked() -> None:
    oldest = {
        tomllib.loads(path.read_text())["project"]["requires-python"]
        for path in ROOT.glob("*/*/pyproject.toml")
    }
    assert oldest == {">=3.11"}
    assert re.search(r'python: \["3.11", "3.12", "3.13", "3.14"\]', WORKFLOW)


@pytest.mark.parametrize("paper", PAPERS)
def test_the_papers_are_there_and_name_nobody_who_is_not(paper: str) -> None:
    text = (ROOT / paper).read_text()
    assert text
    assert re.findall(r"[\w.]+@[\w.]+\.\w+", text) == []


def test_hooks_are_local_and_download_nothing() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", hooks)) == {"local"}
    assert set(re.findall(r"language: (\S+)", hooks)) == {"system"}
    assert all(entry.startswith(".venv/bin/") for entry in re.findall(r"entry: (\S+)", hooks))
