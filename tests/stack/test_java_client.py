"""Java's HttpClient, which Camel, Spring and Quarkus use, asks every HTTP door with its defaults."""

import asyncio
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest

from local_stack.stack import Stack

JAVA = shutil.which("java")
PROGRAM = Path(__file__).parents[1] / "support" / "AskDoors.java"
SECONDS = 120

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.skipif(JAVA is None, reason="there is no java here"),
]


async def asked(*requests: tuple[str, str, str]) -> list[tuple[int, str]]:
    words = [word for request in requests for word in request]
    process = await asyncio.create_subprocess_exec(
        JAVA or "java",
        "-XX:TieredStopAtLevel=1",
        str(PROGRAM),
        *words,
        stdout=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
    )
    async with asyncio.timeout(SECONDS):
        output, _ = await process.communicate()
    assert process.returncode == 0
    answers = (line.partition(" ") for line in output.decode().splitlines())
    return [(int(status), text) for status, _, text in answers]


async def test_each_door_reads_what_javas_client_sends(stack: Stack, tmp_path: Path) -> None:
    """What is sent is such that only who has read it can answer so, and that nothing of it is kept."""
    bodies = {
        "item": json.dumps({"product": "Lemon Tea"}).encode(),
        "text": b"this is no image",
        "edge": json.dumps({"id-edge": "nowhere"}).encode(),
        "instances": b'{"instances": [1]}',
    }
    for name, content in bodies.items():
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "zip", "w") as archive:
        archive.writestr("README", "nothing to store")
    shopper, rest = stack.url("shopper-edge1"), stack.url("model-server-edge1", "rest")
    doors = [
        ("POST", f"{shopper}/item", "item", 200, "tea-lemon"),
        ("POST", f"{shopper}/binary", "text", 422, "not an image"),
        ("POST", f"{shopper}/detection", "text", 400, "not JSON"),
        ("PUT", f"{stack.url('feeder')}/zip?edgeId=edge1", "zip", 422, '"ignored":1'),
        ("POST", f"{stack.url('training')}/", "edge", 404, "nowhere"),
        ("POST", f"{rest}/v1/models/nosuch:predict", "instances", 404, "nosuch"),
        ("POST", f"{rest}/v1/models/nosuch:predict", "text", 400, "JSON"),
        *(
            ("GET", f"{stack.url(part)}/healthz", "-", 200, "ok")
            for part in ("feeder", "training", "delivery", "hub", "edge-manager-edge1", "monitor-edge1")
        ),
    ]
    answers = await asked(
        *((method, url, body if body == "-" else str(tmp_path / body)) for method, url, body, _, _ in doors)
    )
    told = [(url, status) for (_, url, *_), (status, _) in zip(doors, answers, strict=True)]
    assert told == [(url, status) for _, url, _, status, _ in doors], answers
    for (_, url, _, _, says), (_, text) in zip(doors, answers, strict=True):
        assert says in text, url
