"""Two sites and the people at both, once for all tests."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from support.shop import Shop
from support.sites import two_sites

QUICK = {"WINDOW_SECONDS": "2"}
"""So that nobody waits ten seconds for a window to end."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    folder = tmp_path_factory.mktemp("sites")
    async with two_sites(folder, **QUICK) as sites, Shop.open(sites, folder) as shop:
        yield shop
