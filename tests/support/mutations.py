"""Versions with a `model.sig` of which one thing was changed, and whether it still vouches for them."""

import hashlib
import random
from collections.abc import Collection, Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

from caravan.contracts import MANIFEST, SIGNATURE
from caravan.errors import Permanent
from caravan.manifest import Lineage, Manifest
from caravan.model_signature import sign, verify
from caravan.provenance import Provenance
from support import clients

TOOL = Path(clients.__file__).parent / "inference_clients" / "model_signing_tool.py"
"""OpenSSF's; it runs where `clients.python_of("model-signing")` is."""
KINDS = ("byte", "end", "order", "named", "removed", "added", "unsigned", "replayed", "another edge")
FILES = {
    MANIFEST: b'{"edge": "edge1"}',
    "saved_model.pb": b"a graph" * 100,
    "variables/variables.index": b"an index",
    "variables.txt": b"sorts elsewhere as a text than as a path",
}
ORIGIN = Provenance.of(Manifest("tea", 1, (), Lineage(data_digest="d1", parent=3), "edge1"), "run-9")

Files = dict[str, bytes]


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of what is signed."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items() if path != SIGNATURE}


def signed(key: EllipticCurvePrivateKey, files: Mapping[str, bytes] = FILES) -> Files:
    """Return a version with its signature."""
    return {**files, SIGNATURE: sign("tea/1", digests(files), key, ORIGIN)}


def mutation(seed: int, key: EllipticCurvePrivateKey) -> tuple[str, Files]:
    """Return how a signed version was changed, and its files then."""
    chance, files, kind = random.Random(seed), signed(key), KINDS[seed % len(KINDS)]
    path = chance.choice(sorted(FILES))
    content = bytearray(files[path])
    match kind:
        case "byte":
            place = chance.randrange(len(content))
            content[place] = (content[place] + chance.randrange(1, 256)) % 256
            files[path] = bytes(content)
        case "end":
            files[path] = bytes(content[: -chance.randrange(1, 4)])
        case "order":
            one, other = chance.sample(sorted(FILES), 2)
            files[one], files[other] = files[other], files[one]
        case "named":
            files[f"{path}.{seed}"] = files.pop(path)
        case "removed":
            del files[path]
        case "added":
            files[f"variables/{seed}"] = b"more"
        case "unsigned":
            files[SIGNATURE] = files[SIGNATURE][: chance.randrange(len(files[SIGNATURE]))]
        case "replayed":
            before = {**FILES, path: FILES[path] + str(seed).encode()}
            files[SIGNATURE] = signed(key, before)[SIGNATURE]
        case "another edge":
            files[MANIFEST] = FILES[MANIFEST].replace(b"edge1", f"edge{seed + 2}".encode())
    return kind, files


def refused_here(files: Mapping[str, bytes], keys: Collection[EllipticCurvePublicKey]) -> bool:
    """Tell whether a version would not be taken, by its signature and what that vouches for."""
    try:
        return verify(files.get(SIGNATURE, b""), keys) != digests(files)
    except Permanent:
        return True


def laid_out(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files into a folder, and return it."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder
