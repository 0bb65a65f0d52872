"""What a service has in memory before anything has come: what it has no use for is not among that."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "PIL",
    "aioboto3",
    "botocore",
    "cryptography",
    "grpc",
    "httpx",
    "msgpack",
    "numpy",
    "obstore",
    "rich",
    "tensorflow",
    "typer",
)
"""Five to some hundred megabytes each."""


HAS: dict[str, set[str]] = {
    "feeder": {"PIL", "obstore"},
    "delivery": {"httpx"},
    "edge_manager": {"httpx", "obstore"},
    "monitor": set(),
    "shopper": {"PIL", "grpc", "httpx", "obstore"},
}
"""What a service has a use for, by its package."""
SERVICES = sorted(path.parent.name for path in Path(__file__).parents[2].glob("services/*/*/app.py"))


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_loads_nothing_heavy_that_it_has_no_use_for(service: str) -> None:
    code = (
        "import sys\nfrom caravan.start import imports\n"
        f"with imports():\n    import caravan.runtime, {service}.app\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(found.stdout.split()) == HAS[service]


@pytest.mark.parametrize(
    ("command", "needed"),
    [
        ("listen", {"cryptography", "obstore"}),
        ("worker", {"PIL", "cryptography", "numpy", "obstore"}),
    ],
)
def test_training_loads_nothing_heavy_that_its_listener_or_a_run_has_no_use_for(
    command: str, needed: set[str]
) -> None:
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "training", command],
        env=os.environ | {"EDGES": "no edge's id!"},  # all is imported before that is found out
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "EDGES: " in found.stderr
    assert _heavy(found.stderr) == needed


def test_the_model_server_loads_nothing_heavy_that_it_has_no_use_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = subprocess.run(
            [
                *(sys.executable, "-X", "importtime", "-m", "model_server", "--port=0"),
                f"--rest_api_port={taken.getsockname()[1]}",  # all is imported before that is found out
            ],
            env=os.environ | {"MODEL_NAME": "digits"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert "nothing can listen there" in found.stderr
    assert _heavy(found.stderr) == {"PIL", "grpc", "numpy", "obstore", "tensorflow"}


def _heavy(told: str) -> set[str]:
    """Return which of HEAVY were loaded, by what `-X importtime` told."""
    modules = (line.rpartition("|")[2].strip() for line in told.splitlines())
    # Of a package that is there, not of one that was looked for in vain.
    return {name.partition(".")[0] for name in modules if "." in name} & set(HEAVY)


def test_what_no_service_draws_with_can_be_imported_again_once_its_imports_are_done() -> None:
    code = (
        "import gc\nfrom caravan.start import imports\n"
        "with imports():\n    import structlog\n"
        "import rich.console\nprint(gc.isenabled())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


def test_routes_that_are_declared_once_a_service_is_wired_load_no_old_models() -> None:
    code = (
        "import sys\nfrom caravan.start import imports\n"
        "with imports():\n    from fastapi import FastAPI\n"
        "app = FastAPI()\n@app.get('/{size}')\ndef look(size: int) -> dict[str, int]: return {}\n"
        "print(*(name for name in sys.modules if name.startswith('pydantic.v1.')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "\n"
