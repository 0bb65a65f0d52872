"""Looks into an offered version and judges it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace

from caravan.contracts import MANIFEST, ONNX_MODEL, SAVED_MODEL, SIGNATURE
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.pieces import MOST_BYTES, PIECES, from_manifest
from caravan.tf_index import SavedModel, read_index, read_saved_model
from edge_manager.central import Central, CentralAway
from edge_manager.known import Rules
from edge_manager.versions import (
    VARIABLES_INDEX,
    Complete,
    Inspection,
    Listed,
    Offered,
    Refused,
    Waiting,
    Wanted,
    judge_files,
    judge_index,
    judge_manifest,
)

MANIFEST_BYTES = 4 * 2**20
SIGNATURE_BYTES = 4 * 2**20
INDEX_BYTES = 16 * 2**20
UNBOUND = (
    "the signature does not cover for which edge the version is and whether it passed, as those of older "
    "pipelines do not: publish it anew, for example by a rollback to it"
)


async def inspect(central: Central, offered: Offered, rules: Rules) -> Inspection:
    """Judge a version by its manifest, or by TensorFlow's own index if it has none.

    Args:
        central: where it lies.
        offered: what was listed; without a manifest it has to be settled.
        rules: for which edge it has to be, and who may sign it; a signature that can be checked has to fit.

    Raises:
        CentralAway: if the version cannot be read, or changes meanwhile.

    """
    if MANIFEST in offered.by_path:
        return await _by_manifest(central, offered, rules)
    if not offered.is_settled:
        return Waiting("there is no manifest, and the listing is not known to rest yet")
    inspection = await _by_index(central, offered)
    if isinstance(inspection, Complete) and rules.require_signature:
        return Refused("signature", "there is no manifest, and signatures are required here")
    return inspection


async def _by_manifest(central: Central, offered: Offered, rules: Rules) -> Inspection:
    file = offered.by_path[MANIFEST]
    if file.size > MANIFEST_BYTES:
        return Refused("manifest", f"the manifest has {file.size} bytes; {MANIFEST_BYTES} are read")
    raw = await central.read(offered, file)
    try:
        manifest = Manifest.from_json(raw)
    except Permanent as exc:
        return Refused("manifest", str(exc))
    try:
        signature = await _vouched(central, offered, manifest, raw, rules)
    except Permanent as exc:
        return Refused("signature", str(exc))
    refused = _refusal(manifest, rules.edge)
    if refused is None and manifest.shared is not None:
        offered = await central.shared(offered, manifest.shared)
    inspection = refused or judge_manifest(offered, manifest, raw)
    if isinstance(inspection, Waiting) and offered.shared is not None:
        # Not to be remembered: `E-ready` does not change when they come.
        raise CentralAway(f"{inspection.reason} in what the group {offered.shared.group} shares")
    if not isinstance(inspection, Complete):
        return inspection
    if signature is not None:
        inspection = replace(inspection, files=(*inspection.files, signature))
    return await _in_pieces(central, offered, manifest, inspection)


async def _in_pieces(central: Central, offered: Offered, manifest: Manifest, version: Complete) -> Inspection:
    """Read of which pieces a version is, if it says so."""
    told = next((file for file in manifest.files if file.path == PIECES), None)
    raw = None
    if told is not None and told.size <= MOST_BYTES:
        raw = await central.read(offered, offered.by_path[PIECES])
        if hashlib.sha256(raw).hexdigest() != told.sha256.lower():
            return Refused("content", f"{PIECES} is not what the manifest says")
    try:
        return replace(version, pieces=from_manifest(manifest, raw))
    except Permanent as exc:
        return Refused("manifest", str(exc))


async def _vouched(
    central: Central, offered: Offered, manifest: Manifest, raw: bytes, rules: Rules
) -> Wanted | None:
    """Check who vouches for a version; return its `model.sig`, if that does.

    Raises:
        Permanent: if nobody does whose key is known here, though it is required, or is said.

    """
    keys, required = rules.keys, rules.require_signature
    if keys is None:
        return None
    # Seven megabytes, which only those spend who have a key.
    from caravan import model_signature, signatures  # noqa: PLC0415

    file = offered.by_path.get(SIGNATURE) if keys.models else None
    wanted = None
    if file is not None:
        if file.size > SIGNATURE_BYTES:
            raise Permanent(f"{SIGNATURE} has {file.size} bytes; {SIGNATURE_BYTES} are read")
        content = await central.read(offered, file)
        signed = model_signature.read(content, keys.models)
        vouched = signed.digests
        named = signatures.digests_of(manifest, raw)
        if others := dict(vouched.items() ^ named.items()):
            raise Permanent(f"{SIGNATURE} and the manifest differ in {min(others)!r}")
        if unsigned := offered.by_path.keys() - vouched.keys() - {SIGNATURE}:
            raise Permanent(f"{min(unsigned)!r} is there, and {SIGNATURE} does not vouch for it")
        if signed.provenance is not None:
            signed.provenance.check(manifest)
        wanted = Wanted(SIGNATURE, file.size, hashlib.sha256(content).hexdigest(), file.e_tag)
    elif keys.manifests and (required or manifest.signature is not None):
        signatures.verify(manifest, keys.manifests)
    elif required:
        raise Permanent(f"there is no {SIGNATURE}, and signatures are required here")
    else:
        return None
    if manifest.edge is None or manifest.verdict is None:
        raise Permanent(UNBOUND)
    return wanted


def _refusal(manifest: Manifest, edge: str) -> Refused | None:
    """Say why a version is not for this edge to take, if it is not."""
    if manifest.edge not in {None, edge}:
        return Refused("edge", f"the version is for edge {manifest.edge!r}, not for {edge!r}")
    if manifest.is_rejected:
        return Refused("verdict", f"central rejected it: {manifest.lineage.rejected}")
    return None


async def _by_index(central: Central, offered: Offered) -> Inspection:
    there = offered.by_path
    saved_model, index = there.get(SAVED_MODEL), there.get(VARIABLES_INDEX)
    if saved_model is None:
        if ONNX_MODEL in there:
            return judge_files(offered)
        return Waiting(f"{SAVED_MODEL} or {ONNX_MODEL} is missing")
    if index is not None and index.size > INDEX_BYTES:
        return Refused("index", f"{VARIABLES_INDEX} has {index.size} bytes; {INDEX_BYTES} are read")
    try:
        model = await _outline(central, offered, saved_model)
        shards = await asyncio.to_thread(read_index, await central.read(offered, index)) if index else None
    except Permanent as exc:
        return Refused("index", str(exc))
    return judge_index(offered, model, shards)


async def _outline(central: Central, offered: Offered, saved_model: Listed) -> SavedModel:
    file = await central.open(offered, saved_model)
    try:
        return await asyncio.to_thread(read_saved_model, file, saved_model.size)
    except OSError as exc:  # of the reader, in whatever way the store failed
        raise CentralAway(f"{saved_model.path} broke off: {exc}") from exc
