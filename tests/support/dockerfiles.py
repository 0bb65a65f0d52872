"""Dockerfiles as data: their stages, and each stage's instructions in order."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGES = {path.parent.name: path for path in sorted(ROOT.glob("*/*/Dockerfile"))}
"""Each image's Dockerfile, by the image's name, which is its folder's."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: its word, its flags (`--from=build`), and the rest, on one line."""

    word: str
    flags: dict[str, str]
    rest: str

    @property
    def arguments(self) -> list[str]:
        """The rest as words: of a JSON array, or of a shell's line."""
        return list(json.loads(self.rest)) if self.rest.startswith("[") else shlex.split(self.rest)


@dataclass(frozen=True)
class Stage:
    """One `FROM` and what follows it."""

    name: str
    base: str
    steps: tuple[Instruction, ...]

    def of(self, word: str) -> list[Instruction]:
        """Return the instructions of one kind."""
        return [step for step in self.steps if step.word == word]

    @property
    def env(self) -> dict[str, str]:
        """The environment that it sets."""
        return dict(pair.split("=", 1) for step in self.of("ENV") for pair in step.arguments)

    @property
    def command(self) -> list[str]:
        """What a container of it runs."""
        return [word for step in (*self.of("ENTRYPOINT"), *self.of("CMD")) for word in step.arguments]

    @property
    def health_url(self) -> str:
        """The address that its health check asks; empty where it has none."""
        found = re.search(r"https?://[^']+", " ".join(step.rest for step in self.of("HEALTHCHECK")))
        return found[0] if found else ""


def parse(text: str) -> list[Stage]:
    """Return the stages, the last of which is the image."""
    stages: list[Stage] = []
    for step in _instructions(text):
        if step.word == "FROM":
            base, _, name = step.rest.partition(" AS ")
            stages.append(Stage(name or str(len(stages)), base, ()))
        else:
            last = stages.pop()
            stages.append(Stage(last.name, last.base, (*last.steps, step)))
    return stages


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            flags = {}
            while word != "HEALTHCHECK" and (flag := re.match(r"--([a-z-]+)=(\S+)\s+", rest.lstrip())):
                flags[flag[1]] = flag[2]
                rest = rest.lstrip()[flag.end() :]
            yield Instruction(word, flags, re.sub(r"\s+", " ", rest).strip())
