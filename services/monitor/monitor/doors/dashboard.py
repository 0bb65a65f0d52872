"""The dashboard's HTTP doors: all that the page shows, as JSON; and sending dead letters again."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request, Response

from caravan import http
from caravan.contracts import parse_edge
from caravan.errors import BadInput
from monitor.dashboard.accounts import Accounts
from monitor.dashboard.dead_letter_topics import DeadLetterTopics
from monitor.dashboard.dead_letters import DeadLetters
from monitor.dashboard.state import Dashboard


def install(
    app: FastAPI, state: Dashboard, letters: DeadLetters, replaying: DeadLetterTopics, accounts: Accounts
) -> None:
    """Give an app the dashboard's doors."""

    @app.get("/dashboard/state", tags=["dashboard"])
    async def overview() -> Response:
        """Show everything: edges, versions, cameras, uncertain images, the last lines, dead letters."""
        return http.fresh_json(state.snapshot())

    @app.get("/dashboard/account/{edge}", tags=["dashboard"])
    async def account(edge: str) -> Response:
        """Account for every image of an edge."""
        return http.fresh_json(await accounts.of(parse_edge(edge, state.edges)))

    @app.get("/dashboard/dead-letters", tags=["dashboard"])
    async def dead_letters() -> Response:
        """Show the dead letters that wait, by topic."""
        return http.fresh_json({"topics": letters.as_json()})

    @app.post("/dashboard/dead-letters/{topic}/replay", tags=["dashboard"])
    async def replay(request: Request, topic: str) -> Response:
        """Send a topic's dead letters again: 202, and `GET /dashboard/dead-letters` tells how it ended."""
        # A form of another site can send no such body, and a script of another site may not.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise BadInput("send Content-Type: application/json", 415)
        replaying.ask(topic)
        return http.fresh_json({"topic": topic, "replaying": True}, HTTPStatus.ACCEPTED)
