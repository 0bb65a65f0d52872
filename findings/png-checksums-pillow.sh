#!/usr/bin/env bash
# Pillow loads a PNG whose pixels fail their checksum, or whose end is missing; TensorFlow refuses both.
#
# One would think: `Image.load()` without an error means that every reader can read the file. Seen with Pillow 13.0.0
# and TensorFlow 2.21.0:
#   whole: Pillow reads it, TensorFlow reads it
#   without IEND: Pillow reads it, TensorFlow refuses it
#   a wrong checksum of IDAT: Pillow reads it, TensorFlow refuses it
# A door that checks with Pillow alone accepts images that training cannot read: compare the checksums there.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check tensorflow==2.21.0 pillow==13.0.0
TF_CPP_MIN_LOG_LEVEL=3 "$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
import io
import sys

import PIL
import tensorflow as tf
from PIL import Image

target = io.BytesIO()
Image.new("RGB", (8, 8), "green").save(target, "PNG")
whole = target.getvalue()
checksum = len(whole) - 12 - 4  # of the one IDAT, before IEND
files = {
    "whole": whole,
    "without IEND": whole[:-12],
    "a wrong checksum of IDAT": whole[:checksum] + bytes([whole[checksum] ^ 1]) + whole[checksum + 1 :],
}


def reads(decode, image):
    try:
        decode(image)
    except (OSError, SyntaxError, tf.errors.InvalidArgumentError):
        return "refuses"
    return "reads"


print("Pillow", PIL.__version__, "TensorFlow", tf.__version__)
seen = {}
for name, image in files.items():
    seen[name] = reads(lambda raw: Image.open(io.BytesIO(raw)).load(), image), reads(tf.io.decode_image, image)
    print(f"{name}: Pillow {seen[name][0]} it, TensorFlow {seen[name][1]} it")
sys.exit(list(seen.values()) != [("reads", "reads"), ("reads", "refuses"), ("reads", "refuses")])
PYTHON
