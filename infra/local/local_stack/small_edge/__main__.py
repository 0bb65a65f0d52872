"""`python -m local_stack.small_edge`: an edge here in little memory, until Ctrl-C.

What it is told of credentials it hands to its programs alone. It loads little but what they share.
"""

import os
import sys

from caravan import credentials
from caravan.start import imports

SPARING = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": "262144",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}
"""What large bodies took goes back to the system at once, threads share memory, and no fork loses one."""


def main() -> None:
    """Plan an edge by the table, prepare its folders, and become the parent of its programs."""
    os.environ.update(credentials.environment(**SPARING))
    # Imported only now, for it begins anew.
    with imports():
        from local_stack.errors import StackError  # noqa: PLC0415
        from local_stack.ports import HeldPorts  # noqa: PLC0415
        from local_stack.settings import StackSettings  # noqa: PLC0415
        from local_stack.small_edge import parent, programs  # noqa: PLC0415

    told = {**os.environ, "SITE": "edge", "S3": os.environ.get("S3") or "files"}
    with HeldPorts() as held:
        try:
            planned = programs.planned(StackSettings.read(told), os.environ, held)
        except StackError as exc:
            sys.exit(str(exc))
        parent.run(planned)


if __name__ == "__main__":
    main()
