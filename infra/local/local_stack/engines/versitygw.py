"""versitygw: an S3 server over plain files, which takes one pair of keys and no other."""

from __future__ import annotations

from dataclasses import replace

from local_stack.engines.engine import FOLDER, Engine
from local_stack.parts import Part


def _row(part: Part) -> Part:
    return replace(
        part,
        command="{versitygw} --port 127.0.0.1:{s3} --region us-east-1 --keep-alive --quiet"
        " posix --sidecar {data}/facts {data}/objects",
        probe="s3://{keys.in_url}@127.0.0.1:{s3}",
        ports={"s3": part.ports["s3"]},
        env={
            "HOME": "{data}",
            "ROOT_ACCESS_KEY": "{keys.user}",
            "ROOT_SECRET_KEY": "{keys.secret}",
        },
        folders=("facts", "objects"),
        litter=(),
    )  # fmt: skip


VERSITYGW = Engine(
    rows={"s3-central": _row, "s3": _row},
    setting="S3_CENTRAL_ENDPOINT",
    programs={
        "versitygw": (
            FOLDER / "versitygw" / "versitygw",
            "S3=versitygw has to be built, with Go: make engines",
        )
    },
)
