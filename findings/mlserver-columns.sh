#!/usr/bin/env bash
# MLServer 1.7.1: its codecs for the Open Inference Protocol make a table of one column of whatever is flat. An array of
# shape [2] is sent as [2, 1], and so are lists of strings and of bytes.
# A model whose input is a plain vector is therefore asked with a rank that it does not have. And an FP16 array, which
# REST takes, cannot be made a gRPC message unless raw contents are asked for: TypeError.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check mlserver==1.7.1 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import mlserver
import numpy as np
from mlserver.codecs import Base64Codec, NumpyCodec, StringCodec
from mlserver.grpc.converters import ModelInferRequestConverter
from mlserver.types import InferenceRequest

print("mlserver", mlserver.__version__)
flat = NumpyCodec.encode_input("x", np.array([1, 3], np.float32))
shapes = {
    "an array of shape (2,)": flat.shape,
    "two strings": StringCodec.encode_input("x", ["a", "b"]).shape,
    "two byte strings": Base64Codec.encode_input("x", [b"a", b"b"]).shape,
}
for what, shape in shapes.items():
    print(f"{what}: sent as {shape}")
    assert shape == [2, 1], shape
half = InferenceRequest(inputs=[NumpyCodec.encode_input("x", np.array([1, 3], np.float16))])
try:
    ModelInferRequestConverter.from_types(half, model_name="m", use_raw=False)
except TypeError as exc:
    print("FP16 to gRPC contents:", repr(exc))
else:
    raise SystemExit("FP16 was taken")
PYTHON
# Printed on 2026-11-28:
#   mlserver 1.7.1
#   an array of shape (2,): sent as [2, 1]
#   two strings: sent as [2, 1]
#   two byte strings: sent as [2, 1]
#   FP16 to gRPC contents: TypeError('expected bytes, float found')
