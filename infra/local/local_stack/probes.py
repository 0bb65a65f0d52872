"""Is a part ready? One question per scheme of the probe addresses in the table."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree as ET

import aiomqtt
import httpx
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from caravan import strict_json
from caravan.contracts import ENTRY_FILES
from caravan.errors import Permanent
from caravan.s3_signature import signed
from caravan.tokens import TokenSettings
from local_stack.errors import NotReady
from local_stack.keys import Keys
from local_stack.tls.clients import client_context

SECONDS = 5.0
"""Deadline of one question."""
_ENTRIES = tuple(f"/{file}" for file in ENTRY_FILES)
_S3 = "{http://s3.amazonaws.com/doc/2006-03-01/}"

logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is not there yet is no error here


async def ask(http: httpx.AsyncClient, address: str, buckets: Sequence[str] = ()) -> None:
    """Ask a part whether it is ready; an S3 server is given its `buckets` first.

    Raises:
        NotReady: saying what it answered, or why it did not.

    """
    url = urlsplit(address)
    query = dict(parse_qsl(url.query))
    try:
        async with asyncio.timeout(SECONDS):
            if url.scheme == "s3":
                await _s3(http, url, query, buckets)
            else:
                await _PROBES[url.scheme](http, url, query)
    except TimeoutError as exc:
        raise NotReady(f"no answer within {SECONDS:.0f} s") from exc
    except httpx.TransportError as exc:
        raise NotReady(f"no answer: {exc or type(exc).__name__}") from exc
    except (ValueError, LookupError, ET.ParseError) as exc:
        raise NotReady(f"an answer that is not understood: {exc}") from exc


async def _http(http: httpx.AsyncClient, url: SplitResult, _: Mapping[str, str]) -> None:
    """It answers with success."""
    answer = await http.get(url.geturl())
    if not answer.is_success:
        amiss = {name: why for name, why in _checks(answer).items() if why != "ok"}
        why = ", ".join(f"{name}: {why}" for name, why in amiss.items()) or answer.text[:200]
        raise NotReady(f"{url.path} answers {answer.status_code}: {why}", amiss)


def _checks(answer: httpx.Response) -> dict[str, str]:
    try:
        facts = strict_json.loads(answer.content)
    except ValueError:
        return {}
    checks = facts.get("checks") if isinstance(facts, dict) else None
    return {str(name): str(why)[:200] for name, why in checks.items()} if isinstance(checks, dict) else {}


async def _s3(
    http: httpx.AsyncClient, url: SplitResult, query: Mapping[str, str], buckets: Sequence[str]
) -> None:
    """It has the buckets that it should have; and SeaweedFS, a volume server to write to."""
    server = _server(url)
    answer = await _signed(http, url, "GET", f"http://{server}/")
    if not answer.is_success:
        raise NotReady(f"asked for its buckets, it answers {answer.status_code}")
    there = _texts(answer, "Name")
    for bucket in [bucket for bucket in buckets if bucket not in there]:
        made = await _signed(http, url, "PUT", f"http://{server}/{bucket}")
        if not made.is_success and made.status_code != httpx.codes.CONFLICT:
            raise NotReady(f"asked for bucket {bucket}, it answers {made.status_code}")
    if "master" in query:
        topology = (await http.get(f"http://{query['master']}/dir/status")).json().get("Topology", {})
        racks = [rack for centre in topology.get("DataCenters") or () for rack in centre.get("Racks") or ()]
        if not any(rack.get("DataNodes") for rack in racks):
            raise NotReady("its volumes are not there yet")


def _server(url: SplitResult) -> str:
    return url.netloc.rpartition("@")[2]


async def _signed(http: httpx.AsyncClient, url: SplitResult, method: str, asked: str) -> httpx.Response:
    """Ask S3 with the keys that a probe's address has as its user."""
    address = Keys(unquote(url.username or ""), unquote(url.password or "")).address("")
    return await http.request(method, asked, headers=signed(address, method, asked))


def _texts(answer: httpx.Response, tag: str) -> set[str]:
    root = ET.fromstring(answer.content)  # noqa: S314  our own server on loopback
    return {element.text or "" for element in root.iter(f"{_S3}{tag}")}


async def _kafka(_http: httpx.AsyncClient, url: SplitResult, _query: Mapping[str, str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=url.netloc, request_timeout_ms=int(SECONDS * 1000))
    try:
        await admin.start()
        await admin.list_topics()
    except (KafkaError, OSError) as exc:
        raise NotReady(f"no metadata: {exc}") from exc
    finally:
        await admin.close()


async def _mqtt(_http: httpx.AsyncClient, url: SplitResult, query: Mapping[str, str]) -> None:
    """It takes a client, through TLS where there are certificates."""
    try:
        tls = await asyncio.to_thread(client_context, Path(query["certs"])) if "certs" in query else None
        async with aiomqtt.Client(url.hostname or "", url.port or 0, timeout=SECONDS, tls_context=tls):
            pass
    except (aiomqtt.MqttError, OSError, Permanent) as exc:
        raise NotReady(f"no connection: {exc}") from exc


async def _model_server(http: httpx.AsyncClient, url: SplitResult, query: Mapping[str, str]) -> None:
    """It says itself that it brings no model up; and where its bucket holds versions, it knows of one."""
    server = f"http://{_server(url)}"
    await _http(http, urlsplit(f"{server}/v2/health/ready"), query)
    try:
        token = await asyncio.to_thread(lambda: TokenSettings().token_to_show)
    except ValueError as exc:  # whose words may hold what was given
        raise NotReady("it asks for a token, and TOKENS or TOKENS_FILE cannot be read") from exc
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await http.get(f"{server}/v1/models/{query['model']}", headers=headers)
    if answer.status_code == httpx.codes.NOT_FOUND:
        keys = f"list-type=2&max-keys=1000&prefix=models%2F{quote(query['model'])}%2F"
        listing = await _signed(http, url, "GET", f"http://{query['s3']}/{query['bucket']}?{keys}")
        if any(key.endswith(_ENTRIES) for key in _texts(listing, "Key")):
            raise NotReady("it has not found the versions in its bucket yet")
    elif not answer.is_success:
        raise NotReady(f"the model's status answers {answer.status_code}")


_PROBES: Mapping[str, Callable[[httpx.AsyncClient, SplitResult, Mapping[str, str]], Awaitable[None]]] = {
    "http": _http,
    "kafka": _kafka,
    "mqtt": _mqtt,
    "mqtts": _mqtt,
    "model-server": _model_server,
}
