"""Where the delivery service is wired together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import httpx
from fastapi import FastAPI

from caravan import dead_letters, http, kafka, kafka_topics
from caravan.consume import Consumption
from caravan.contracts import TRIGGER, dead_letter
from caravan.intake import Senders
from caravan.runtime import Service
from caravan.tls import verifying
from delivery.listener import EventListener
from delivery.routes import EDGES_IN_FLIGHT, LISTENER, TRIGGER_PIPELINE, policy, trigger_pipeline
from delivery.settings import DeliverySettings

CONNECTIONS = httpx.Limits(max_connections=EDGES_IN_FLIGHT + 1)
"""One connection per edge and one for the ping: a request that hangs blocks no other."""


@asynccontextmanager
async def wire(settings: DeliverySettings) -> AsyncIterator[Service]:
    """Make the clients, the web app and the loop; close the clients at the end."""
    async with AsyncExitStack() as stack:
        producer = await stack.enter_async_context(kafka.Producer(settings))
        verify = verifying(settings.eventlistener_url)
        client = await stack.enter_async_context(httpx.AsyncClient(limits=CONNECTIONS, verify=verify))
        listener = EventListener(client, settings.eventlistener_url)

        async def consume() -> None:
            await kafka_topics.ensure_topics(settings, [TRIGGER, dead_letter(TRIGGER)])
            async with kafka.consumer(settings, TRIGGER, group=settings.kafka_group) as source:
                await trigger_pipeline(
                    source,
                    listener,
                    partial(dead_letters.send_dead_letter, producer, TRIGGER_PIPELINE.id),
                    partial(dead_letters.park, producer, TRIGGER),
                    policy(settings.max_age_seconds),
                    coalesce_seconds=settings.coalesce_seconds,
                )

        route = Consumption(TRIGGER_PIPELINE.id, consume)
        app = FastAPI(title="Caravan delivery", docs_url=None, redoc_url=None)
        checks = {"kafka": producer.ping, LISTENER: listener.ping, TRIGGER_PIPELINE.id: route.ping}
        http.install(app, checks, Senders(settings.doors))
        yield Service(app, {TRIGGER_PIPELINE.id: route.run})
