"""The Dockerfile as data: the stages of each image, and their instructions in order."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "infra" / "Dockerfile"
IMAGES: list[str] = re.findall(r"^FROM runtime AS (\S+)$", DOCKERFILE.read_text(), re.MULTILINE)
"""What `--build-arg SERVICE=` may name."""
VERSION = (ROOT / "VERSION").read_text().strip()


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
    def labels(self) -> dict[str, str]:
        """What it says of itself."""
        return dict(pair.split("=", 1) for step in self.of("LABEL") for pair in step.arguments)

    @property
    def exposed(self) -> set[int]:
        """The ports on which it listens."""
        return {int(port) for step in self.of("EXPOSE") for port in step.arguments}

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
        last = self.of("HEALTHCHECK")[-1].rest
        found = re.search(r"https?://[^']+", last.replace(":%s/", f":{self.env.get('PORT')}/"))
        return found[0] if found else ""


@cache
def stages(image: str) -> tuple[Stage, Stage]:
    """Return the stage that builds an image, and the image; each with the stages that it begins from."""
    text = DOCKERFILE.read_text().replace("${SERVICE}", image).replace("${VERSION}", VERSION)
    there = {stage.name: stage for stage in parse(text)}

    def whole(name: str) -> Stage:
        stage = there[name]
        if stage.base not in there:
            return stage
        below = whole(stage.base)
        return Stage(name, below.base, (*below.steps, *stage.steps))

    return whole("app"), whole(image)


def parse(text: str) -> list[Stage]:
    """Return the stages as they are written."""
    stages: list[Stage] = []
    for step in _instructions(text):
        if step.word == "FROM":
            base, _, name = step.rest.partition(" AS ")
            stages.append(Stage(name or str(len(stages)), base, ()))
        elif stages:  # before the first there are but arguments
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
