"""shopper: speaks to TensorFlow Serving without TensorFlow."""

import json
import subprocess
import sys

PROBE = """
import json, psutil, sys
import shopper.model.tfserving
from shopper.model.stubs import PredictRequest
print(json.dumps({
    "tensorflow": [name for name in sys.modules if name in {"tensorflow", "tensorflow.python"}],
    "megabytes": psutil.Process().memory_info().rss / 2**20,
    "request": PredictRequest.DESCRIPTOR.full_name,
}))
"""


def test_the_stubs_come_without_tensorflow_and_cost_little_memory() -> None:
    output = subprocess.run([sys.executable, "-c", PROBE], check=True, capture_output=True, timeout=60).stdout
    seen = json.loads(output)
    assert seen["tensorflow"] == []
    assert seen["megabytes"] < 150
    assert seen["request"] == "tensorflow.serving.PredictRequest"


def test_a_process_that_has_the_stubs_can_still_find_the_real_tensorflow() -> None:
    code = "import shopper.model.stubs, importlib.util; print(importlib.util.find_spec('tensorflow').origin)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60).stdout
    assert output.decode().strip().endswith("tensorflow/__init__.py")
