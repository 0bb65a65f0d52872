"""Our own S3 server over plain files, in a sixth of what SeaweedFS holds in memory: for the small edge."""

from __future__ import annotations

from dataclasses import replace

from local_stack.engines.engine import Engine
from local_stack.parts import Part


def _row(part: Part) -> Part:
    return replace(
        part,
        command="{python} -m local_stack.file_store {data} {s3}",
        probe="s3://{keys.in_url}@127.0.0.1:{s3}",
        ports={"s3": part.ports["s3"]},
        env={
            "AWS_ACCESS_KEY_ID": "{keys.user}",
            "AWS_SECRET_ACCESS_KEY": "{keys.secret}",
            "CAPTURED_MIB": "{captured_mib}",
        },
        litter=(),
        grace=5,
    )


FILES = Engine(rows={"s3-central": _row, "s3": _row}, setting="S3_CENTRAL_ENDPOINT")
