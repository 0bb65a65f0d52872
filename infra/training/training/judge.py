"""Step judge: models that people sent become versions, or get a reason why not.

FROM `E-models`, `uploads/` → unpack → trial in a process of its own → a version number → TO `E-models` and
`E-ready` → the verdict beside the upload, last. Killed anywhere and run again, it is the same version: its
number belongs to the upload.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from caravan import model_index, s3, times, tracing
from caravan.concurrency import for_each
from caravan.contracts import Event, model_rejected_event
from caravan.errors import Permanent
from caravan.manifest import Lineage
from caravan.members import MEMBERS, write_members
from caravan.model_zips import ModelZipLimits, read_model_zip
from caravan.names import cut
from caravan.uploads import Listed, Upload, Verdict, pending_uploads, read_upload, write_verdict, zip_key
from training.baseline import Baseline, baseline
from training.cutting import with_pieces
from training.evaluate import Answer, evaluate
from training.gate import gate
from training.publish import announce_outcome, publish, read_key
from training.steps import Run
from training.stores import EDGES_AT_ONCE, Stores
from training.trial import Found, Job
from training.trials import tried

log = structlog.get_logger()

MAX_ENTRIES = 100_000
NOBODY: Mapping[str, str] = {}


async def judge_step(run: Run) -> list[tuple[Upload, Verdict]]:
    """Judge every pending upload of the edge, in the order in which they came; return what was judged.

    Of a group, so are those that are for one of its members alone.

    Raises:
        Transient: if a store is away; what is judged stays judged.

    """
    judged = await _judge_pending(run, await pending_uploads(run.stores.models))
    if not run.stores.members:
        return judged
    # A name that the group has taken is taken at all its edges.
    shared = {run.settings.model_name, *await model_index.models(run.stores.ready)}
    waiting: dict[str, list[Listed]] = {}

    async def look(member: Stores) -> None:
        waiting[member.edge] = await pending_uploads(member.models)

    await for_each(run.stores.members, look, at_once=EDGES_AT_ONCE)
    for member in run.stores.members:

        def announce(event: Event, edge: str = member.edge) -> None:
            run.announce(event | {"edge": edge})

        one = replace(run, edge=member.edge, stores=member, announce=announce)
        judged += await _judge_pending(one, waiting[member.edge], dict.fromkeys(shared, run.edge))
    return judged


async def _judge_pending(
    run: Run, waiting: Sequence[Listed], owners: Mapping[str, str] = NOBODY
) -> list[tuple[Upload, Verdict]]:
    """Judge an edge's uploads; `owners` are the groups that have a model for it, by the model's name."""
    judged = []
    for number, listed in enumerate(waiting):
        run.progress("judge", number / len(waiting))
        try:
            upload = await _upload(run, listed)
        except Permanent as exc:
            log.warning(
                "upload cannot be read", edge=run.edge, model=listed.model, upload=listed.id, error=str(exc)
            )
        else:
            judged.append((upload, await _judge(run, upload, owners)))
    return judged


async def _upload(run: Run, listed: Listed) -> Upload:
    upload = await read_upload(run.stores.models, listed.model, listed.id)
    if upload is None or (upload.model, upload.id) != (listed.model, listed.id):
        raise Permanent("it is not what its key says")
    return upload


async def _judge(run: Run, upload: Upload, owners: Mapping[str, str]) -> Verdict:
    facts = {"edge": run.edge, "model": upload.model, "upload": upload.id}
    with tracing.span("judge"):
        tracing.note(**facts)
        try:
            _is_its_own(run.edge, upload.model, owners)
            verdict = await _published(run, upload)
        except Permanent as exc:
            verdict = Verdict(
                "rejected", upload.id, None, upload.classes, cut(str(exc)), times.now("milliseconds")
            )
            run.announce(model_rejected_event(upload.model, None, str(exc), upload=upload.id))
        await write_verdict(run.stores.models, upload, verdict)
        tracing.note(state=verdict.state)
    log.info("upload judged", state=verdict.state, version=verdict.version, reason=verdict.reason, **facts)
    return verdict


def _is_its_own(edge: str, model: str, owners: Mapping[str, str]) -> None:
    group = owners.get(model)
    if group is not None:
        raise Permanent(f"{edge} shares {model} with the group {group}: send it to {group}")


async def _published(run: Run, upload: Upload) -> Verdict:
    """Make a version of an upload.

    Raises:
        Permanent: if it is rejected; the message is for its sender.
        Transient: if a store is away.

    """
    settings, model = run.settings, upload.model
    run.workspace.directory.mkdir(parents=True, exist_ok=True)
    # Absolute: the trial has a folder of its own.
    with tempfile.TemporaryDirectory(dir=run.workspace.directory.absolute(), prefix="upload-") as folder:
        directory = Path(folder, "model")
        files = await _unpacked(run, upload, directory)
        against = await baseline(run) if model == settings.model_name else None
        found, metrics = await _tried(run, upload, directory, against)
        lineage = Lineage(
            upload=upload.id,
            parent=None if against is None else against.parent.version,
            classes=found.classes,
            metrics=metrics,
        )
        key = read_key(settings.signing_key)
        members = None if against is None else Path(folder, MEMBERS)
        if against is not None and members is not None:
            await asyncio.to_thread(write_members, members, {}, (), against.out.members)
        files = await asyncio.to_thread(with_pieces, files, Path(folder, "pieces.json"))
        published = await publish(
            run.stores, model, upload.id, files, lineage, key=key, members=members, run=run.id
        )
    announce_outcome(run.stores, published, run.announce)
    version, classes, held = published.manifest.version, published.manifest.lineage.classes, published.held
    if held is not None:
        return Verdict("held", upload.id, version, classes, held.reason, times.now("milliseconds"))
    return Verdict("ready", upload.id, version, classes, "", times.now("milliseconds"))


async def _unpacked(run: Run, upload: Upload, directory: Path) -> dict[str, Path]:
    """Fetch the ZIP and unpack the model in it; return its files by their path within the version."""
    limits = ModelZipLimits(MAX_ENTRIES, run.settings.max_model_bytes)
    with tempfile.TemporaryFile(dir=run.workspace.directory) as file:
        try:
            await s3.download(run.stores.models, zip_key(upload.model, upload.sha256), file)
        except FileNotFoundError as exc:
            raise Permanent("its ZIP is gone: send it again") from exc

        def unpack() -> dict[str, Path]:
            file.seek(0)
            if hashlib.file_digest(file, "sha256").hexdigest() != upload.sha256:
                raise Permanent("its ZIP is not what was sent: send it again")
            found = read_model_zip(file, limits)
            found.unpack(directory)
            return {path: directory / path for path in found.files}

        return await asyncio.to_thread(unpack)


async def _tried(
    run: Run, upload: Upload, directory: Path, against: Baseline | None
) -> tuple[Found, dict[str, Any]]:
    """Load and ask a model, and hold it against its parent where it has one.

    Raises:
        Permanent: if it cannot be taken.

    """
    images = () if against is None else tuple(str(path.absolute()) for path in against.out.files)
    is_contract = upload.model == run.settings.model_name
    job = Job(str(directory), upload.entry, upload.classes, is_contract, images)
    found = await tried(job, run.settings.trial_seconds)
    if found.fault is not None:
        raise Permanent(found.fault)
    if against is None:
        return found, {}
    if len(found.answers) != len(images):
        raise Permanent("it did not answer every held-out image")
    answers = [
        Answer(sha, truth, label, probability)
        for (sha, truth), (label, probability) in zip(against.out.truths, found.answers, strict=True)
    ]
    margin = run.settings.gate_tolerance
    verdict = gate(against.out.judged, answers, against.parent, margin=margin)
    if verdict.rejected is not None:
        raise Permanent(verdict.rejected)
    before = evaluate(against.parent.answers).metrics["accuracy"]
    return found, evaluate(answers).metrics | {"parent_accuracy": before}
