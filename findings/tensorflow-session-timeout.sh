#!/usr/bin/env bash
# TensorFlow 2.21: a session's call may be run on the caller's own thread (RunOptions.inter_op_thread_pool = -1), which costs
# a quarter of a call through a pool. Then its timeout_in_ms is taken and not heeded: nothing looks at the clock. In a pool
# of its own the same call is cancelled in time: DEADLINE_EXCEEDED. Closing the session ends both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow-cpu==2.21.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import time

import tensorflow as tf

v1 = tf.compat.v1
print("tensorflow", tf.__version__)
with tf.Graph().as_default() as graph:
    count = tf.while_loop(lambda i: i < 300_000, lambda i: [i + 1], [0])[0]


def call(**options):
    config = v1.ConfigProto(use_per_session_threads=True)
    with v1.Session(graph=graph, config=config) as session:
        began = time.monotonic()
        try:
            session.run(count, options=v1.RunOptions(timeout_in_ms=100, **options))
        except tf.errors.DeadlineExceededError:
            said = "DEADLINE_EXCEEDED"
        else:
            said = "answered"
        return said, time.monotonic() - began


pool, inline = call(), call(inter_op_thread_pool=-1)
print(f"in a pool: {pool[0]} after {pool[1]:.1f} s")
print(f"on the caller's thread: {inline[0]} after {inline[1]:.1f} s")
assert pool[0] == "DEADLINE_EXCEEDED"
assert inline[0] == "answered" and inline[1] > 0.2
PYTHON
