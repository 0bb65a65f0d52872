"""The EventListener as delivery sees it: Tekton Triggers, or the local one that answers alike."""

from __future__ import annotations

import asyncio

import httpx

from caravan import strict_json, tracing
from caravan.errors import Permanent, Transient
from caravan.strict_json import NotJson

ANSWER_SECONDS = 10.0
_TRY_AGAIN = {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS}
_NOT_LET_IN = {
    httpx.codes.UNAUTHORIZED,
    httpx.codes.FORBIDDEN,
    httpx.codes.PROXY_AUTHENTICATION_REQUIRED,
}
"""Of whoever guards the listener: they say nothing of the trigger, and pass once rights are mended."""


class EventListener:
    """Starts training runs over HTTP."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url
        self._not_let_in = ""

    async def start_run(self, edge: str) -> str:
        """Ask for a run for an edge; return the event's id, empty where the listener gives none.

        Raises:
            Transient: if the listener is away or overloaded, or does not let us in.
            Permanent: if it refuses.

        """
        try:
            # A deadline for the whole: httpx has one for each byte.
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._client.post(
                    self._url, json={"id-edge": edge}, headers=tracing.headers(), timeout=None
                )
        except (httpx.HTTPError, TimeoutError) as exc:
            message = f"the EventListener at {self._url} does not answer: {exc!r}"
            raise Transient(message) from exc
        self._not_let_in = ""
        if answer.status_code in _NOT_LET_IN:
            self._not_let_in = (
                f"the EventListener at {self._url} does not let us in ({answer.status_code} "
                f"{answer.reason_phrase}): check the rights there, and what guards it; triggers wait"
            )
            raise Transient(self._not_let_in)
        if answer.is_server_error or answer.status_code in _TRY_AGAIN:
            message = f"the EventListener answers {answer.status_code}"
            raise Transient(message)
        if not answer.is_success:
            why = f"it leads to {answer.headers['Location']}" if answer.has_redirect_location else answer.text
            message = f"the EventListener refuses with {answer.status_code}: {why[:200]}"
            raise Permanent(message)
        return _event_id(answer)

    async def ping(self) -> None:
        """Check that something answers there, whatever it says to a GET, and let the last trigger in.

        Raises:
            Transient: if not.

        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._client.get(self._url, timeout=None)
        except (httpx.HTTPError, TimeoutError) as exc:
            message = f"the EventListener at {self._url} does not answer: {exc!r}"
            raise Transient(message) from exc
        if self._not_let_in:
            raise Transient(self._not_let_in)


def _event_id(answer: httpx.Response) -> str:
    # Tekton's content type is not to be relied on, and another listener may answer no JSON at all.
    try:
        return str(strict_json.loads_object(answer.content).get("eventID", ""))
    except NotJson:
        return ""
