"""The files that the steps of one run hand to each other; each step reads what the one before wrote."""

import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from caravan.contracts import HEAD, SAVED_MODEL, TWIN
from caravan.errors import Permanent
from caravan.members import MEMBERS
from training.dataset import Dataset
from training.gate import GateResult
from training.holdout import Judged
from training.layer import Curves
from training.stores import read_json, write_json


@dataclass(frozen=True)
class Settled:
    """A version of just the data that there is, and why no other is needed.

    Attributes:
        state: `skipped` if it was settled before, `ready` if it is now, `held` while a rollback holds.

    """

    version: int
    state: Literal["skipped", "ready", "held"]
    reason: str


@dataclass(frozen=True)
class Acquired:
    """Written by acquire.

    Attributes:
        attempt: id under which a version number is claimed; kept when the same data is acquired again, so
            that an interrupted run goes on where it was.
        settled: the version that has this data already, if any; then there is nothing to train.

    """

    dataset: Dataset
    attempt: str
    settled: Settled | None = None


@dataclass(frozen=True)
class Trained:
    """Written by train: from what the head was made, and how it learned.

    Attributes:
        held_out: images that it did not learn from.
        groups: on how many groups each class stands.

    """

    digest: str
    seed: int
    backbone: str
    counts: dict[str, int]
    unreadable: dict[str, str]
    curves: Curves
    held_out: tuple[Judged, ...]
    groups: dict[str, int]


@dataclass(frozen=True)
class Evaluated:
    """Written by evaluate: what the manifest will say."""

    digest: str
    metrics: dict[str, Any]
    parent: int | None
    classes: tuple[str, ...]
    verdict: GateResult


@dataclass(frozen=True)
class Workspace:
    """A directory for one edge's run."""

    directory: Path

    @property
    def model(self) -> Path:
        """The SavedModel, and its twin."""
        return self.directory / "model"

    @property
    def staged(self) -> Path:
        """The model while it is made, the head first."""
        return self.directory / "model.new"

    @property
    def head(self) -> Path:
        """The head as arrays, for comparing later versions with this one."""
        return self.model / HEAD

    @property
    def report(self) -> Path:
        """The evaluation report."""
        return self.directory / "report"

    @property
    def members(self) -> Path:
        """What the version was made of."""
        return self.directory / MEMBERS

    def files(self) -> dict[str, Path]:
        """Return the files of the version by their path within it."""
        return self.model_files() | _files(self.report, "report/")

    def model_files(self) -> dict[str, Path]:
        """Return those files of the version that are there before it is judged."""
        return _files(self.model, "")

    def write_acquired(self, dataset: Dataset, settled: Settled | None, *, again: bool) -> Acquired:
        """Note what was acquired, under the attempt that is under way for this data, or a new one."""
        before = self._before()
        same = before is not None and before.dataset.digest == dataset.digest and not again
        attempt = before.attempt if same and before is not None else uuid.uuid4().hex
        told = None if settled is None else asdict(settled)
        body = {"dataset": dataset.to_json(), "attempt": attempt, "settled": told}
        write_json(self.directory / "dataset.json", body)
        return Acquired(dataset, attempt, settled)

    def read_acquired(self) -> Acquired:
        """Read what acquire wrote; raises Permanent if it has not run."""
        body = read_json(self.directory / "dataset.json")
        settled = None if body["settled"] is None else Settled(**body["settled"])
        return Acquired(Dataset.from_json(body["dataset"]), body["attempt"], settled)

    def _before(self) -> Acquired | None:
        try:
            return self.read_acquired()
        except (Permanent, KeyError, TypeError, ValueError):
            return None

    def write_trained(self, trained: Trained) -> None:
        """Note that model and head are there, whole."""
        write_json(self.directory / "training.json", asdict(trained))

    def read_trained(self) -> Trained:
        """Read what train wrote; raises Permanent if it has not run."""
        body = read_json(self.directory / "training.json")
        curves = body["curves"]
        # Only what is wanted: a build of before noted more.
        series = {
            name: tuple(curves[name]) for name in ("train_loss", "validation_loss", "validation_accuracy")
        }
        read = {
            "curves": Curves(**series, best_step=curves["best_step"]),
            "held_out": tuple(Judged(**image) for image in body["held_out"]),
        }
        return Trained(**(body | read))

    def is_trained(self, digest: str, seed: int, backbone: str) -> bool:
        """Tell whether train has already made a model of this."""
        try:
            trained = self.read_trained()
        except (Permanent, KeyError, TypeError):
            return False
        there = all(file.exists() for file in (self.head, self.model / SAVED_MODEL, self.model / TWIN))
        return there and (trained.digest, trained.seed, trained.backbone) == (digest, seed, backbone)

    def write_evaluated(self, evaluated: Evaluated) -> None:
        """Note the verdict; the report is there, whole."""
        write_json(self.directory / "evaluation.json", asdict(evaluated))

    def read_evaluated(self, digest: str) -> Evaluated:
        """Read what evaluate wrote of this data; raises Permanent if it has not run."""
        body = read_json(self.directory / "evaluation.json")
        if body["digest"] != digest:
            raise Permanent("the evaluation is of other data: run evaluate again")
        return Evaluated(
            **(body | {"classes": tuple(body["classes"]), "verdict": GateResult(**body["verdict"])})
        )


def _files(root: Path, prefix: str) -> dict[str, Path]:
    return {
        prefix + path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()
    }
