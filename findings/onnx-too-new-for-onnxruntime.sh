#!/usr/bin/env bash
# onnx 1.23.2 and onnxruntime 1.31.1, both the latest of their day: a model that onnx.helper makes with nothing said about
# versions (IR 14, opset 28) is refused by onnxruntime, twice over: it takes IR 13 and opset 26 at most.
# The reason begins with a path and a C++ signature out of onnxruntime's own sources; who shows only the beginning of a
# reason shows nothing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.31.1
"$folder/venv/bin/python" - <<'PYTHON'
import onnx
import onnxruntime
from onnx import TensorProto, helper

print("onnx", onnx.__version__, "onnxruntime", onnxruntime.__version__)
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3]) for name in "xy")
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", [x], [y])
default = helper.make_model(graph)
print("by default: IR", default.ir_version, "opset", default.opset_import[0].version)


def refusal(model):
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except Exception as exc:  # its errors have no public base class
        return str(exc)
    return ""


first = refusal(default)
default.ir_version = 10
second = refusal(default)
default.opset_import[0].version = 26
print("IR 14:", first[:90], "…", first.strip()[-67:])
print("opset 28:", second[:90], "…", second.strip()[-66:])
assert "Unsupported model IR version: 14, max supported IR version: 13" in first
assert "till opset 26" in second
assert "/onnxruntime_src/" in first[:80] and "/onnxruntime_src/" in second[:80]
assert refusal(default) == ""
print("IR 10, opset 26: taken")
PYTHON
