"""Virtual environments for other people's clients, which cannot be installed beside the product."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = Path(sys.prefix) / "clients"
SECONDS = 300


class NotInstalled(Exception):
    """The client's packages cannot be had; the text is the installer's."""


def python_of(client: str) -> Path:
    """Return the Python that has what `requirements/clients/<client>.txt` pins; blocks while it is made.

    Raises:
        NotInstalled: if the packages cannot be fetched.

    """
    pins = ROOT / "requirements" / "clients" / f"{client}.txt"
    environment = ENVIRONMENTS / f"{client}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:12]}"
    python, made = environment / "bin" / "python", environment / "made"
    if not made.exists():
        uv = Path(sys.prefix) / "bin" / "uv"
        for step in (
            ("venv", "--quiet", "--clear", "--python", sys.executable, environment),
            ("pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", pins),
        ):
            done = subprocess.run([uv, *step], capture_output=True, text=True, timeout=SECONDS, check=False)
            if done.returncode:
                raise NotInstalled(done.stderr.strip())
        made.touch()
    return python
