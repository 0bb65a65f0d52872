"""What each image contains, as CycloneDX: `python -m support.sbom FOLDER` in tests/.

What an image has of PyPI is said by the locks that it is installed from. Some may have the browsers' MQTT
client, out of npm, besides: one file, which its package brings along. What that was built of it does not say.
"""

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.dockerfiles import IMAGES, ROOT, VERSION, stages

NPM = "services/shopper/npm"
TOOLS = "requirements/uv.txt"
"""What an image is built with, and does not have itself."""


def locks(image: str) -> list[str]:
    """Return the locks from which an image has packages, or some modules of one."""
    runs = " ".join(step.rest for step in stages(image)[0].of("RUN"))
    return [file for file in re.findall(r"--require-hashes -r (\S+)", runs) if file != TOOLS]


def of_npm(image: str) -> list[dict[str, Any]]:
    """Return the packages of npm of which an image may have a file, as components."""
    if not any(NPM in step.arguments for step in stages(image)[0].of("COPY")):
        return []
    there = json.loads((ROOT / NPM / "package-lock.json").read_text())["packages"]
    return [_component(name, there[f"node_modules/{name}"]) for name in there[""]["dependencies"]]


def _component(name: str, locked: dict[str, str]) -> dict[str, Any]:
    kind, _, digest = locked["integrity"].partition("-")
    purl = f"pkg:npm/{name}@{locked['version']}"
    return {
        "bom-ref": purl,
        "type": "library",
        "name": name,
        "version": locked["version"],
        "scope": "optional",
        "description": "there if `make web` has fetched it",
        "hashes": [{"alg": kind.replace("sha", "SHA-"), "content": base64.b64decode(digest).hex()}],
        "licenses": [{"license": {"id": locked["license"]}}],
        "purl": purl,
    }


def sbom(image: str, project: Path) -> dict[str, Any]:
    """Return the document of an image; `project` is written."""
    project.write_text(f'[project]\nname = "caravan-{image}"\nversion = "{VERSION}"\n')
    tool = (sys.executable, "-m", "cyclonedx_py", "requirements", "--output-reproducible", "--of", "JSON")
    made = subprocess.run(
        [*tool, "--pyproject", str(project), "-"],
        input="".join((ROOT / file).read_text() for file in locks(image)),
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    document: dict[str, Any] = json.loads(made.stdout)
    more = of_npm(image)
    document["components"] += more
    document["dependencies"] += [{"ref": one["bom-ref"]} for one in more]
    return document


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    (ROOT / "build").mkdir(exist_ok=True)
    for each in IMAGES:
        text = json.dumps(sbom(each, ROOT / "build" / "image.toml"), indent=2)
        (folder / f"{each}.cdx.json").write_text(text + "\n")
