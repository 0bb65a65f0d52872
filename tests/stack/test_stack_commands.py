"""The commands, as a user types them."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from local_stack.launch import clean
from local_stack.state import read_state


class Shell:
    """Runs `python -m local_stack` in one folder, with free ports."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def spawn(self, *words: str, **environment: str) -> asyncio.subprocess.Process:
        base = {"CARAVAN_HOME": str(self.home), "PORTS": "free", "PARTS": "mqtt", "COLUMNS": "200"}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local_stack", *words),
            env={**os.environ, **base, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, *words: str, **environment: str) -> tuple[int | None, str]:
        process = await self.spawn(*words, **environment)
        output, _ = await asyncio.wait_for(process.communicate(), 120)
        return process.returncode, output.decode()

    def alive(self) -> list[str]:
        state = read_state(self.home)
        parts = state.parts if state else []
        return [part.name for part in parts if part.identity and part.identity.alive] + (
            ["supervisor"] if state and state.running else []
        )


@pytest_asyncio.fixture
async def shell(tmp_path: Path) -> AsyncIterator[Shell]:
    home = tmp_path / "home"
    yield Shell(home)
    await clean(home)


async def test_start_status_stop_and_clean(shell: Shell) -> None:
    assert (await shell.run("status"))[0] == 1
    code, output = await shell.run("start")
    assert code == 0
    state = read_state(shell.home)
    assert state is not None
    assert f"mqtt://127.0.0.1:{state.part('mqtt-edge1').ports['mqtt']}" in output

    code, output = await shell.run("start")
    assert (code, "already running" in output) == (0, True)
    code, output = await shell.run("start", EDGES="edge1 edge2")
    assert (code, "stop it first" in output) == (1, True)
    code, output = await shell.run("status", "--json")
    facts = json.loads(output)
    assert (code, facts["ready"], facts["pid"]) == (0, True, state.pid)
    code, output = await shell.run("status")
    assert code == 0
    assert "mqtt-edge1  ready" in output
    assert "listen" in (await shell.run("logs", "mqtt-edge1"))[1]

    assert (await shell.run("stop"))[0] == 0
    assert shell.alive() == []
    assert (await shell.run("status"))[0] == 1
    assert (await shell.run("clean"))[0] == 0
    assert not shell.home.exists()


async def test_all_busy_ports_are_named_and_nothing_is_started(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        mqtt, websocket = str(one.getsockname()[1]), str(two.getsockname()[1])
        code, output = await shell.run("start", PORTS="fixed", MQTT_PORT=mqtt, MQTT_WS_PORT=websocket)
    assert code == 1
    assert f"port {mqtt} (mqtt of edge1) is in use: set MQTT_PORT to another" in output
    assert f"port {websocket} (mqtt of edge1) is in use: set MQTT_WS_PORT to another" in output
    assert shell.alive() == []


async def test_a_part_that_cannot_run_fails_the_start_and_says_why(shell: Shell, tmp_path: Path) -> None:
    broken = tmp_path / "tansu"
    broken.write_text("#!/bin/sh\necho out of luck\nexit 3\n")
    broken.chmod(0o755)
    code, output = await shell.run("start", PARTS="kafka", KAFKA="embedded", CALF_TANSU_BIN=str(broken))
    assert code == 1
    assert "kafka is not ready: exit code 3" in output
    assert "out of luck" in output
    assert shell.alive() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_up_runs_here_until_a_signal(shell: Shell, eventually: Any, number: signal.Signals) -> None:
    process = await shell.spawn("up")
    await eventually(lambda: (state := read_state(shell.home)) and state.ready)
    process.send_signal(number)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    assert "mqtt-edge1 ready" in output.decode()
    assert "mqtt-edge1 stopped" in output.decode()
    assert shell.alive() == []


async def test_an_unknown_part_has_no_log(shell: Shell) -> None:
    code, output = await shell.run("logs", "mosquitto")
    assert (code, "there is no log of 'mosquitto'" in output) == (1, True)
