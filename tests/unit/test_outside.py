"""What the outside sees of the project: its workflows, templates, hooks and papers hang together."""

import re
import subprocess
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


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of one commit, whose changelog has version 1.2.3."""
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [1.2.3] - 2030-01-01\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "Begin")
    return tmp_path


def git(folder: Path, *words: str) -> None:
    names = [option for name in ("user.name", "user.email") for option in ("-c", f"{name}=nobody")]
    subprocess.run(["git", *names, *words], cwd=folder, check=True)


def refusal(folder: Path, version: str) -> str:
    done = subprocess.run(
        ["sh", ROOT / ".ci/may-release", version], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stderr


def test_a_clean_tree_whose_changelog_has_the_version_may_be_released(checkout: Path) -> None:
    assert refusal(checkout, "1.2.3") == ""


def test_a_dirty_tree_is_not_released(checkout: Path) -> None:
    (checkout / "more").touch()
    assert "not clean" in refusal(checkout, "1.2.3")


def test_a_version_is_released_once(checkout: Path) -> None:
    git(checkout, "tag", "v1.2.3")
    assert "tagged already" in refusal(checkout, "1.2.3")


@pytest.mark.parametrize("version", ["1.2.4", "1.2", "1x2.3"])
def test_a_version_that_the_changelog_does_not_have_is_not_released(checkout: Path, version: str) -> None:
    assert "CHANGELOG.md has no heading" in refusal(checkout, version)
