"""Settings of the training pipeline and its listener."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from caravan.contracts import DEFAULT_MODEL
from caravan.rollout import parse_rings
from caravan.settings import (
    AtOnce,
    CentralS3Settings,
    EdgesSettings,
    KafkaSettings,
    OptionalPath,
    Port,
    Seconds,
    SecondsOrNone,
    ServiceSettings,
)

ROOT = Path(".caravan/training")


def _rings(text: str) -> str:
    parse_rings(text)
    return text.strip()


class TrainingSettings(ServiceSettings, KafkaSettings, CentralS3Settings, EdgesSettings):
    """Whose images, which model, how strict, and where things are kept."""

    port: Port = 8085
    model_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")] = DEFAULT_MODEL

    gate_tolerance: float = Field(default=0.01, ge=0, le=1)
    """How much worse than its parent a version may be before the gate counts it."""
    seed: int = Field(default=0, ge=0)
    signing_key: OptionalPath = None
    retain_versions: int = Field(default=20, ge=0)
    """Versions of a model that are kept: so many that passed, and as many rejected; 0 for all."""

    rollout: Annotated[str, AfterValidator(_rings)] = ""
    """Rings in which a group's version goes to its edges, as `1,20%,100%`; empty: to all at once."""
    rollout_soak: SecondsOrNone = 300
    """Seconds that the edges of a ring serve a version, where none compares it with the one before."""

    trial_seconds: Seconds = 120
    """Seconds that an uploaded model may take to load and to answer."""
    max_model_bytes: int = Field(default=2**30, gt=0)

    cache_dir: Path = ROOT / "cache"
    work_dir: Path = ROOT / "work"
    state_dir: Path = ROOT / "state"

    runs_at_once: AtOnce = 1
    run_seconds: Seconds = 3600
    """Seconds after which a run counts as hung, is ended and made again."""
    warm_worker: bool = True
    """Keep a process ready that has the backbone loaded."""
    warm_exporter: bool = True
    """Keep a process ready that has TensorFlow and the template loaded; else each run starts one."""
    traceparent: str = ""
    """Trace that a step continues if it runs alone, as a task of a pipeline."""
    run_id: str = ""
    """Id of the run that a step belongs to if it runs alone; else a command makes one up."""
    namespace: str = "caravan"
    """Namespace in the listener's answers, as Tekton's has it."""
