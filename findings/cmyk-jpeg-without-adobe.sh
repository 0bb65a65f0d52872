#!/usr/bin/env bash
# A CMYK JPEG without Adobe's marker has inverted colours for Pillow, and not for TensorFlow.
#
# One would think: Pillow inverts CMYK where Adobe's marker says so. It inverts always; TensorFlow goes by the marker.
# Seen with Pillow 13.0.0 and TensorFlow 2.21.0, of a picture of (200, 30, 40):
#   with Adobe's marker: Pillow (200, 30, 40), TensorFlow (200, 30, 40)
#   without: Pillow (200, 30, 40), TensorFlow (0, 0, 0)
# Training sees another picture than the door shows: refuse four inks without the marker.
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
Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK").save(target, "JPEG", quality=100)
marked = target.getvalue()
start = marked.index(b"\xff\xee")
bare = marked[:start] + marked[start + 2 + int.from_bytes(marked[start + 2 : start + 4], "big") :]

print("Pillow", PIL.__version__, "TensorFlow", tf.__version__)
near = []
for name, image in (("with Adobe's marker", marked), ("without", bare)):
    pillow = Image.open(io.BytesIO(image)).convert("RGB").getpixel((8, 8))
    tensorflow = tuple(tf.io.decode_image(image, channels=3).numpy()[8, 8].tolist())
    print(f"{name}: Pillow {pillow}, TensorFlow {tensorflow}")
    near.append(max(abs(a - b) for a, b in zip(pillow, tensorflow)) < 10)
sys.exit(near != [True, False])
PYTHON
