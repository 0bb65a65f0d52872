"""Who runs which tests, where `make test` has several processes: by file, the longest first."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

TOGETHER = {
    "tests/loop/": "the platform",
    "tests/faults/": "the platform",
    "tests/stack/test_account_stack.py": "the shared stack",
    "tests/stack/test_digits_stack.py": "the shared stack",
    "tests/stack/test_java_client.py": "the shared stack",
    "tests/stack/test_models_stack.py": "the shared stack",
    "tests/stack/test_stack_supervision.py::test_the_whole_platform": "the shared stack",
    "tests/unit/test_inference_clients.py": "the model server",
    "tests/unit/test_model_server_": "the model server",
    "tests/unit/test_saved_models.py": "the model server",
}
"""What shares a stack, or a process that runs SavedModels, by the beginning of a test's name."""

FIRST = (
    "the platform",
    "the shared stack",
    "tests/unit/test_training_export.py",
    "the model server",
    "tests/unit/test_training_pipeline.py",
    "tests/stack/",
    "tests/unit/test_edge_manager_route.py",
    "tests/unit/test_training_",
)
"""What takes long, in this order; the rest fills what is left at the end."""


class Longest(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types here
    """Gives each process the next file, or group of files, as soon as it has nothing left to do."""

    def _split_scope(self, nodeid: str) -> str:
        return scope(nodeid)

    def _assign_work_unit(self, node: Any) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
        super()._assign_work_unit(node)


def scope(nodeid: str) -> str:
    """Return what a test is given out with: its group, or its file."""
    group = next((group for start, group in TOGETHER.items() if nodeid.startswith(start)), "")
    return group or nodeid.partition("::")[0]


def rank(given: str) -> int:
    """Return the place of a group or a file in the order in which they are begun."""
    return next((place for place, start in enumerate(FIRST) if given.startswith(start)), len(FIRST))
