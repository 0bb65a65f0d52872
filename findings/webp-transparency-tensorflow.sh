#!/usr/bin/env bash
# TensorFlow's decode_image(channels=3) drops the alpha of a PNG, and refuses a WebP that has one.
#
# One would think: `channels=3` means RGB for every format, as its documentation says. Seen with TensorFlow 2.21.0:
#   PNG with alpha, channels=3: (8, 8, 3)
#   WebP without alpha, channels=3: (8, 8, 3)
#   WebP with alpha, channels=3: Number of channels requested does not match input
#   WebP with alpha, channels=0: (8, 8, 4)
# So photos that a door has taken are "damaged" in training. Ask a WebP with channels=0 and cut off the fourth.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 pillow==13.0.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import io
import sys

import tensorflow as tf
from PIL import Image


def encoded(mode, kind):
    target = io.BytesIO()
    Image.new(mode, (8, 8), (200, 30, 40, 128)[: len(mode)]).save(target, kind)
    return target.getvalue()


def shape(image, channels):
    try:
        return tuple(tf.io.decode_image(image, channels=channels, expand_animations=False).shape)
    except tf.errors.InvalidArgumentError as exc:
        return "Number of channels requested does not match input" if "Number of channels" in str(exc) else str(exc)


print("TensorFlow", tf.__version__)
png, plain, clear = encoded("RGBA", "PNG"), encoded("RGB", "WEBP"), encoded("RGBA", "WEBP")
seen = [shape(png, 3), shape(plain, 3), shape(clear, 3), shape(clear, 0)]
for name, what in zip(["PNG, 3", "WebP, 3", "WebP with alpha, 3", "WebP with alpha, 0"], seen):
    print(f"{name}: {what}")
sys.exit(seen != [(8, 8, 3), (8, 8, 3), "Number of channels requested does not match input", (8, 8, 4)])
PYTHON
