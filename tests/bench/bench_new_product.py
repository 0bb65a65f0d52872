"""How soon a product is known after the last byte of its photos: `bench_new_product.py FIRST.zip NEW.zip`.

A stack of its own starts; the first ZIP trains it cold, the second brings a new product while the process
that trains is warm. A photo is asked about twice a second until it is known. A line of JSON for each has the
seconds until the upload is answered, and until the photo is known; and CPU seconds of the training listener
and its children.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import httpx
import psutil

from caravan.contracts import OTHER
from local_stack.stack import Stack

EVERY = 0.5
PATIENCE = 120


async def main() -> None:
    """Measure both."""
    async with httpx.AsyncClient(timeout=PATIENCE) as http:
        with tempfile.TemporaryDirectory() as folder:
            async with Stack(Path(folder, "home")) as stack:
                for name in ("first, cold", "new, warm"):
                    await asyncio.sleep(8)  # The process that trains makes itself ready.
                    facts = await _learnt(stack, http, Path(sys.argv[1 if name.startswith("first") else 2]))
                    sys.stdout.write(json.dumps({"upload": name} | facts) + "\n")
                    sys.stdout.flush()


async def _learnt(stack: Stack, http: httpx.AsyncClient, archive: Path) -> dict[str, Any]:
    content = await asyncio.to_thread(archive.read_bytes)
    product, photo = _product(archive)
    cpu = _cpu()
    began = time.monotonic()
    answer = await http.put(f"{stack.url('feeder')}/zip?edgeId=edge1", content=content)
    answer.raise_for_status()
    stored = time.monotonic() - began
    while time.monotonic() - began < PATIENCE:
        answer = await http.post(f"{stack.url('shopper-edge1')}/binary", content=photo)
        if answer.is_success and answer.json().get("item") == product:
            break
        await asyncio.sleep(EVERY)
    known = time.monotonic() - began
    return {
        "stored_s": round(stored, 2),
        "known_s": round(known, 2),
        "training_cpu_s": round(_cpu() - cpu, 1),
    }


def _product(archive: Path) -> tuple[str, bytes]:
    """Return a class that is not `other`, and one of its photos."""
    with zipfile.ZipFile(archive) as opened:
        name = max(name for name in opened.namelist() if f"/{OTHER}/" not in name)
        return name.split("/")[1], opened.read(name)


def _cpu() -> float:
    """Return CPU seconds of the listener of the training pipeline and all of its children."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        if "training" in " ".join(process.cmdline()):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


if __name__ == "__main__":
    asyncio.run(main())
