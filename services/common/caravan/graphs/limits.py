"""What a loaded graph may use of the machine."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SessionLimits:
    """What a session may use.

    Attributes:
        intra_op_threads: threads within an operation, shared by all sessions of the process.
        inter_op_threads: threads across operations, this session's own.
        run_seconds: seconds after which a call is cancelled: DEADLINE_EXCEEDED.
        load_seconds: deadline of restoring and initialising, in seconds.

    """

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    run_seconds: float = 60.0
    load_seconds: float = 300.0
