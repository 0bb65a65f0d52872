"""Versions, decided purely: which are offered, which are complete, which are wanted, which may go.

Nothing here touches a store, so that every decision can be tested as a value.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from caravan.contracts import (
    ENTRY_FILES,
    LONGEST_FACT,
    MANIFEST,
    SIGNATURE,
    VersionKey,
    is_model_name,
    version_prefix,
)
from caravan.manifest import Manifest, Shared
from caravan.model_index import LARGEST_VERSION
from caravan.names import cut
from caravan.pieces import Pieces
from caravan.tf_index import SavedModel

VARIABLES_INDEX = "variables/variables.index"
_FOLDERS = {"variables", "assets", "assets.extra"}

Cause = Literal["manifest", "signature", "edge", "verdict", "index", "content", "load"]
"""What was wrong with a refused version, for metrics: its manifest, its signature, it is another edge's, the
gate at central rejected it, its TensorFlow index, its bytes, or the model server could not load it."""
BY_A_LOOK: Collection[Cause] = ("manifest", "signature", "edge", "verdict", "index")
"""The causes that are found before anything is copied, and by keys, settings and software that may change."""

Standing = Literal["open", "waiting", "refused"]
"""What is known of a version: it may be taken, it is not complete or not readable, it is refused as it is."""


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """A version of a model."""

    model: str
    version: int

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"

    def key(self, path: str) -> str:
        """Key of one of its files, the same in every bucket."""
        return version_prefix(self.model, self.version) + path


@dataclass(frozen=True, slots=True, order=True)
class Listed:
    """One file of a version, as `E-ready` lists it: path relative to the version, size in bytes."""

    path: str
    size: int
    e_tag: str | None


@dataclass(frozen=True, slots=True)
class Offered:
    """A version as it lies in `E-ready`, whole or not.

    `fingerprint` changes whenever a file is added, replaced or removed; the manifest is one of them. It
    `is_settled` if it was the same when it was listed before. Files that the edge's group `shared` lie in
    `G-ready`, all but the manifest and what vouches for it.
    """

    ref: Ref
    files: tuple[Listed, ...]
    fingerprint: str
    is_settled: bool = False
    shared: Shared | None = None

    @property
    def by_path(self) -> dict[str, Listed]:
        """The files by their path."""
        return {file.path: file for file in self.files}


@dataclass(frozen=True, slots=True)
class Offer:
    """What central offers of one model.

    Attributes:
        versions: the numbers that it names, newest first, some of which may be gone.
        offered: the versions above the edge's own that were looked at, newest first.
        fault: why the model could not be looked at; the rest is then as it was before.

    """

    versions: tuple[int, ...] = ()
    offered: tuple[Offered, ...] = ()
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to copy: `sha256` in hex is known when a manifest vouches for it."""

    path: str
    size: int
    sha256: str | None
    e_tag: str | None


@dataclass(frozen=True, slots=True)
class Complete:
    """A version that may be copied.

    Attributes:
        ref: which one.
        fingerprint: of the offer that was judged.
        files: all to be copied but the manifest and the entry file.
        manifest: the bytes that were checked, and so the bytes to write; None if there is none.
        entry: `saved_model.pb` or `model.onnx`, which makes the version visible, copied last.
        pieces: of its files, where a manifest vouches for them.
        shared: where the files lie, if the edge's group made them.

    """

    ref: Ref
    fingerprint: str
    files: tuple[Wanted, ...]
    manifest: bytes | None
    entry: Wanted
    pieces: Pieces = field(default_factory=Pieces)
    shared: Shared | None = None

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(file.size for file in (*self.files, self.entry)) + len(self.manifest or b"")

    @property
    def paths(self) -> frozenset[str]:
        """The paths of all its files, the manifest included where there is one."""
        manifest = () if self.manifest is None else (MANIFEST,)
        return frozenset([*(file.path for file in self.files), self.entry.path, *manifest])


@dataclass(frozen=True, slots=True)
class Waiting:
    """A version that is not complete yet."""

    reason: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", cut(self.reason, LONGEST_FACT))


@dataclass(frozen=True, slots=True)
class Refused:
    """A version that will not be taken as it is; one that `may_pass` is tried again after a while."""

    cause: Cause
    reason: str
    may_pass: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", cut(self.reason, LONGEST_FACT))


Inspection = Complete | Waiting | Refused


# --- what is offered ----------------------------------------------------------------------------


def parse_key(key: str) -> tuple[Ref, str] | None:
    """Return the version and the path in it of a key, or None where it is not a file of a version.

    Passed over are versions written `007`, numbers that the model server cannot read, and model names
    that are not plain.
    """
    parts = VersionKey.parse(key)
    if parts is None or not is_model_name(parts.model) or parts.version > LARGEST_VERSION:
        return None
    ref = Ref(parts.model, parts.version)
    return (ref, parts.path) if ref.key(parts.path) == key else None


def offers(listing: Iterable[tuple[str, int, str | None]]) -> dict[str, tuple[Offered, ...]]:
    """Group a listing of (key, size, ETag) into versions, newest first, by model.

    Keys that `parse_key` does not take are passed over.
    """
    found: dict[Ref, list[Listed]] = defaultdict(list)
    for key, size, e_tag in listing:
        file = parse_key(key)
        if file is not None:
            ref, path = file
            found[ref].append(Listed(path, size, e_tag))
    by_model: dict[str, list[Offered]] = defaultdict(list)
    for ref in sorted(found, reverse=True):
        files = tuple(sorted(found[ref], key=lambda file: file.path))
        by_model[ref.model].append(Offered(ref, files, _fingerprint(files)))
    return {model: tuple(versions) for model, versions in by_model.items()}


def _fingerprint(files: Sequence[Listed]) -> str:
    lines = "".join(f"{file.path}\0{file.size}\0{file.e_tag}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def worth_a_look(offered: Sequence[Offered], *, above: int, refused: Mapping[Ref, str]) -> Iterator[Offered]:
    """Yield the versions to look into, newest first.

    Args:
        offered: the versions of one model, newest first.
        above: the newest version that the edge has whole; 0 for none. What is older is not needed: an
            edge that was away for five versions takes the newest alone.
        refused: fingerprint of each version as it was when refused; a changed one is looked at anew.

    """
    for offer in offered:
        if offer.ref.version > above and refused.get(offer.ref) != offer.fingerprint:
            yield offer


# --- what is complete ---------------------------------------------------------------------------


def judge_manifest(offered: Offered, manifest: Manifest, raw: bytes) -> Inspection:
    """Judge a version by its manifest: it is complete when every file named is there with its size.

    A file that is missing may still come, so it is waited for; a file of another size is wrong.
    Files that the manifest does not name are not copied.
    """
    ref, there = offered.ref, offered.by_path
    if (manifest.model, manifest.version) != (ref.model, ref.version):
        return Refused("manifest", f"the manifest is for {manifest.model!r} version {manifest.version}")
    fault = _path_fault([file.path for file in manifest.files])
    if fault is not None:
        return Refused("manifest", fault)
    missing = [file.path for file in manifest.files if file.path not in there]
    if missing:
        return Waiting(f"{len(missing)} files of the manifest are missing, such as {missing[0]!r}")
    wanted = []
    for file in manifest.files:
        listed = there[file.path]
        if listed.size != file.size:
            return Refused("content", f"{file.path!r} has {listed.size} bytes; the manifest says {file.size}")
        wanted.append(Wanted(file.path, file.size, file.sha256, listed.e_tag))
    return _complete(offered, wanted, raw)


def judge_index(offered: Offered, model: SavedModel, shards: Sequence[int] | None) -> Inspection:
    """Judge a version without a manifest by TensorFlow's own index.

    Args:
        offered: the version.
        model: what its `saved_model.pb` asks for.
        shards: for each variables shard the bytes that the index points into; None without an index.

    """
    files = _without_folders(offered.files)
    there = {file.path: file for file in files}
    needed: dict[str, int] = {f"assets/{name}": 0 for name in model.assets}
    if shards is None:
        if model.has_checkpoint or any(path.startswith("variables/") for path in there):
            return Waiting(f"{VARIABLES_INDEX} is missing")
    else:
        for number, size in enumerate(shards):
            needed[f"variables/variables.data-{number:05d}-of-{len(shards):05d}"] = size
    for path, size in needed.items():
        listed = there.get(path)
        if listed is None:
            return Waiting(f"{path} is missing")
        if listed.size < size:
            return Waiting(f"{path} has {listed.size} bytes of {size}")
    fault = _path_fault(list(there))
    if fault is not None:
        return Refused("index", fault)
    return _complete(offered, [Wanted(f.path, f.size, None, f.e_tag) for f in files], None)


def judge_files(offered: Offered) -> Inspection:
    """Judge an ONNX model without a manifest: nothing says what belongs to it but the listing at rest."""
    files = _without_folders(offered.files)
    fault = _path_fault([file.path for file in files])
    if fault is not None:
        return Refused("index", fault)
    return _complete(offered, [Wanted(f.path, f.size, None, f.e_tag) for f in files], None)


def _without_folders(files: Collection[Listed]) -> list[Listed]:
    """Leave out the empty objects that some tools write as folders."""
    folders = {str(parent) for file in files for parent in PurePosixPath(file.path).parents} | _FOLDERS
    return [file for file in files if file.size or not (file.path in folders or file.path.endswith("/"))]


def _complete(offered: Offered, wanted: Iterable[Wanted], manifest: bytes | None) -> Inspection:
    by_path = {file.path: file for file in wanted}
    entries = [name for name in ENTRY_FILES if name in by_path]
    if not entries:
        return Refused("manifest", f"the manifest names none of {', '.join(ENTRY_FILES)}")
    if len(entries) > 1:
        return Refused("manifest", f"there are {' and '.join(entries)}: a version is one model")
    entry = by_path.pop(entries[0])
    files = tuple(by_path.values())
    return Complete(offered.ref, offered.fingerprint, files, manifest, entry, shared=offered.shared)


def _path_fault(paths: Sequence[str]) -> str | None:
    """Say what keeps these paths from being files side by side, in a bucket as on a disk."""
    seen = set(paths)
    if len(seen) != len(paths):
        return "a file is named twice"
    for path in paths:
        parts = PurePosixPath(path).parts
        is_odd = path != "/".join(parts) or ".." in parts or "\\" in path or "\0" in path
        if is_odd or path in {MANIFEST, SIGNATURE}:
            return f"{path!r} cannot be the path of a file"
        if any(str(parent) in seen for parent in PurePosixPath(path).parents):
            return f"{path!r} lies inside what is a file itself"
    return None


# --- what may go --------------------------------------------------------------------------------


def surplus(held: Mapping[int, bool], *, serving: int, keep: int, in_use: Collection[int]) -> list[int]:
    """Return the versions that a sink may lose, oldest first.

    Args:
        held: the versions in the sink; True for those that are whole.
        serving: the version that the model server is known to answer with.
        keep: how many whole versions stay, `serving` among them.
        in_use: versions that the model server has in hand now; they always stay.

    """
    whole = sorted((v for v, is_whole in held.items() if is_whole and v <= serving), reverse=True)
    kept = {*whole[:keep], *in_use, serving}
    return sorted(v for v in held if v < serving and v not in kept)
