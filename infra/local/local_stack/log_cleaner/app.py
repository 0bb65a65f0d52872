"""Where the log cleaner is wired together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI

from caravan import http
from caravan.retry import forever
from caravan.runtime import Service
from caravan.s3 import open_bucket
from local_stack.log_cleaner.cleaner import LogCleaner
from local_stack.log_cleaner.settings import LogCleanerSettings
from local_stack.parts import KAFKA_BUCKET, KAFKA_CLUSTER

LOOP = "log-cleaner"


@asynccontextmanager
async def wire(settings: LogCleanerSettings) -> AsyncIterator[Service]:
    """Make the store's client, the web app and the loop."""
    cleaner = LogCleaner(open_bucket(settings.central, KAFKA_BUCKET), KAFKA_CLUSTER, settings.limits)
    app = FastAPI(title="Caravan log cleaner", docs_url=None, redoc_url=None)
    http.install(app, {LOOP: cleaner.ping})
    yield Service(app, {LOOP: partial(forever, LOOP, cleaner.run)})
