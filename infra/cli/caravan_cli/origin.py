"""Where a version comes from: as its `model.sig` says, if that can be checked, or else its manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from obstore.store import ObjectStore

from caravan import model_index, model_signature, s3, signatures, strict_json
from caravan.contracts import MANIFEST, SIGNATURE, claim_key, version_prefix
from caravan.errors import Permanent
from caravan.manifest import Manifest
from caravan.provenance import Provenance
from caravan.strict_json import NotJson


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a version comes from, and who says so, in words."""

    version: int
    provenance: Provenance
    word: str

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield what is known, with its name."""
        for name, fact in asdict(self.provenance).items():
            if fact not in {None, ""}:
                yield name.replace("_", " "), str(fact)
        yield "vouched for", self.word


async def read_origin(
    models: ObjectStore, model: str, version: int | None, public_key: Path | None
) -> Origin:
    """Return where a version comes from, or the newest that has a manifest.

    Args:
        models: `E-models`, of an edge or a group.
        model: its name.
        version: its number.
        public_key: PEM file of the keys that are believed.

    Raises:
        Permanent: if there is no such version, or its signature does not hold; the message says why.
        Transient: if the store is away.

    """
    manifest, raw = await _manifest(models, model, version)
    try:
        signature = await s3.read(models, version_prefix(model, manifest.version) + SIGNATURE)
    except FileNotFoundError:
        signature = None
    plain = Provenance.of(manifest, await _run(models, model, manifest.version))
    if signature is None and manifest.signature is None:
        return Origin(manifest.version, plain, "no: the version is not signed")
    if public_key is None:
        return Origin(manifest.version, plain, "not checked: PUBLIC_KEY is not set")
    keys = signatures.read_public_keys(public_key)
    if signature is None:
        signatures.verify(manifest, keys.manifests)
        return Origin(manifest.version, plain, "by the manifest's own signature")
    signed = model_signature.read(signature, keys.models)
    if signed.digests != signatures.digests_of(manifest, raw):
        raise Permanent(f"{SIGNATURE} is not of this version: it and the manifest differ")
    if signed.provenance is None:
        return Origin(manifest.version, plain, f"by {SIGNATURE}, which says it of the manifest alone")
    signed.provenance.check(manifest)
    return Origin(manifest.version, signed.provenance, f"by {SIGNATURE}")


async def _run(models: ObjectStore, model: str, version: int) -> str | None:
    """Return the run that took a version's number, if that is noted; nobody vouches for it."""
    try:
        run = strict_json.loads_object(await s3.read(models, claim_key(model, version))).get("run")
    except (FileNotFoundError, NotJson):
        return None
    return run if isinstance(run, str) else None


async def _manifest(models: ObjectStore, model: str, version: int | None) -> tuple[Manifest, bytes]:
    for number in await model_index.numbers(models, model) if version is None else (version,):
        try:
            raw = await s3.read(models, version_prefix(model, number) + MANIFEST)
        except FileNotFoundError:
            continue
        return Manifest.from_json(raw), raw
    raise Permanent(
        f"there is no version {'' if version is None else f'{version} '}of {model} with a manifest"
    )
