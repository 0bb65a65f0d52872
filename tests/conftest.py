"""One platform, trained on rendered photos, for the tests of the loop and for those that hurt it."""

import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from lab.photos import render
from local_stack.proxies import past_proxies
from local_stack.stack import Stack
from support.platform import EDGE, Platform
from support.scheduling import Longest

os.environ.update(past_proxies(os.environ))
"""Some of the clients here ask the environment whom to go through."""


os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
"""Each process would compile every test anew, which is half of what it takes to collect them."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Longest:
    """Asked by xdist."""
    return Longest(config, log)


QUICK = {"WINDOW_SECONDS": "2"}
"""So that nobody waits ten seconds for a window to end."""


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A photo of a product that the platform has learnt."""
    return render("tea-lemon", 4_000_001)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def platform(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Platform]:
    """A stack that serves version 1."""
    folder = tmp_path_factory.mktemp("platform")
    async with (
        Stack(folder / "home", edges=(EDGE,), environment=QUICK, lasting=False) as stack,
        httpx.AsyncClient(timeout=60) as client,
    ):
        platform = Platform(stack, client, folder)
        await platform.upload_until_taken(platform.archive(1, other=80, tea_lemon=40, tea_earl_grey=40))
        await platform.wait_serving(1)
        yield platform
