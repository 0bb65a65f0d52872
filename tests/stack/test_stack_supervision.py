"""The supervisor: brings back what dies, and leaves nothing behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil

from local_stack.plan import Plan
from local_stack.processes import Identity
from local_stack.stack import Stack
from local_stack.state import PartState, StackState, read_state, write_state

SECONDS = 60


def processes(state: StackState) -> list[Identity]:
    return [Identity(state.pid, state.born), *(part.identity for part in state.parts if part.identity)]


async def test_a_killed_part_comes_back_and_says_how_it_ended(private_stack: Any, mqtt: Any) -> None:
    stack = await private_stack("mqtt")
    before = stack.state.part("mqtt-edge1")

    await stack.kill("mqtt-edge1")
    await stack.wait_ready("mqtt-edge1")

    after = stack.state.part("mqtt-edge1")
    assert after.pid != before.pid
    assert (after.restarts, after.last_exit) == (1, "killed by SIGKILL")
    assert after.ports == before.ports
    await mqtt(stack.port("mqtt-edge1"), "monitor")


async def test_kafka_goes_on_when_the_store_beneath_it_was_killed(
    private_stack: Any, producer: Any, consumer: Any
) -> None:
    stack = await private_stack("kafka", "s3-central")
    writer = await producer(stack.kafka)
    await writer.send_and_wait("trigger", b"before")

    await stack.kill("s3-central")
    await stack.wait_ready("s3-central")

    await asyncio.wait_for(writer.send_and_wait("trigger", b"after"), SECONDS)
    reader = await consumer(stack.kafka, "trigger")
    async with asyncio.timeout(SECONDS):
        # A topic may have several partitions, without an order between them.
        assert {(await reader.getone()).value for _ in range(2)} == {b"before", b"after"}


async def test_a_stop_leaves_no_process_and_no_litter(private_stack: Any) -> None:
    stack = await private_stack("kafka", "mqtt")
    state = stack.state
    planned = Plan(stack.settings, state.ports).parts.values()
    litter = [path for part in planned for path in part.litter]
    assert not litter or any(path.exists() for path in litter)

    await stack.stop()

    assert [each for each in processes(state) if each.alive] == []
    assert [path for path in litter if path.exists()] == []


async def test_two_edges_have_brokers_and_stores_of_their_own(private_stack: Any, mqtt: Any, s3: Any) -> None:
    stack = await private_stack("mqtt", "s3", edges=("edge1", "edge2"))
    one, two = [await mqtt(stack.port(f"mqtt-{edge}"), "monitor") for edge in ("edge1", "edge2")]
    page = await mqtt(stack.port("mqtt-edge1", "websocket"), "monitor", transport="websockets")
    stores = [await s3(stack.url(f"s3-{edge}")) for edge in ("edge1", "edge2")]

    await one.publish("monitor", b"from edge1", qos=1)
    await two.publish("monitor", b"from edge2", qos=1)
    await stores[0].put_object(Bucket="data", Key="images/tea/1.jpg", Body=b"1")

    async with asyncio.timeout(SECONDS):
        assert [(await anext(client.messages)).payload for client in (one, two, page)] == [
            b"from edge1",
            b"from edge2",
            b"from edge1",
        ]
    counts = [(await store.list_objects_v2(Bucket="data"))["KeyCount"] for store in stores]
    assert counts == [1, 0]


async def test_the_stack_ends_with_the_program_that_started_it(tmp_path: Path, eventually: Any) -> None:
    program = f"""
import asyncio, pathlib
from local_stack.stack import Stack
async def main():
    async with Stack(pathlib.Path({str(tmp_path)!r}), parts=("mqtt",)):
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert starter.stdout is not None
    assert await starter.stdout.readline() == b"ready\n"
    state = read_state(tmp_path)
    starter.kill()
    await starter.wait()
    assert state is not None
    await eventually(lambda: not any(each.alive for each in processes(state)))


async def test_a_part_that_outlived_its_supervisor_is_ended_by_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "private"
    environment = {**os.environ, "CARAVAN_HOME": str(home)}
    orphan = await asyncio.create_subprocess_exec("sleep", "600", env=environment, start_new_session=True)
    recorded = PartState(
        name="feeder",
        edge=None,
        pid=orphan.pid,
        born=psutil.Process(orphan.pid).create_time(),
        address="127.0.0.1:1",
        ports={"http": 1},
    )
    write_state(StackState(pid=orphan.pid, born=0, home=home, edges=("edge1",), parts=[recorded]))
    async with Stack(home, parts=("mqtt",)):
        assert await asyncio.wait_for(orphan.wait(), SECONDS) == -signal.SIGTERM


async def test_the_whole_platform_is_ready_with_two_edges(stack: Stack, http: Any, eventually: Any) -> None:
    rows = {part.name: part.each_edge for part in stack.settings.rows}
    expected = {f"{name}-{edge}" for name, each in rows.items() if each for edge in ("edge1", "edge2")}
    assert set(stack.names) == expected | {name for name, each in rows.items() if not each}
    await eventually(lambda: stack.state.ready)
    for name in ("feeder", "delivery", "training", "monitor-edge1", "edge-manager-edge2"):
        await eventually(lambda name=name: says_ready(http, f"{stack.url(name)}/readyz"))


async def says_ready(http: httpx.AsyncClient, address: str) -> bool:
    answer = await http.get(address)
    return answer.is_success and answer.json()["ready"] is True
