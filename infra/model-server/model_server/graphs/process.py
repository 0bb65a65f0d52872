"""Starts the process that runs SavedModels, asks it, and starts it again when it ends.

All SavedModels share it: TensorFlow alone takes half a gigabyte. It is there while one is loaded.
"""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import structlog
from numpy.typing import NDArray

from caravan.graphs.limits import SessionLimits
from model_server.errors import Code, ServingError
from model_server.graphs.messages import Arrays, Head, HungUpError, encode, receive, send

log = structlog.get_logger()

STEADY_SECONDS = 60.0
"""A process that ran for so long is started again at once when it ends."""
MAX_PAUSE_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.1

_NEEDED = "tensorflow"
_GONE = "The process that runs SavedModels has ended; it is being started again"


class _Child:
    """One such process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                [sys.executable, "-m", "model_server.graphs"],
                stdin=theirs.fileno(),
                env=dict(environment),
                start_new_session=True,  # a signal to the server's group is the server's to act on
            )
        self._idle: list[socket.socket] = []
        self.pid = self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, head: Head, arrays: Arrays) -> tuple[Head, dict[str, NDArray[Any]]]:
        """Return the answer (blocking). Raises ServingError if that is one, HungUpError if there is none."""
        message = encode(head, arrays)
        try:
            channel = self._idle.pop()
        except IndexError:
            channel = self._open()
        try:
            send(channel, message)
            answer = receive(channel)
        except BaseException:
            channel.close()
            raise
        self._idle.append(channel)
        if "error" in answer[0]:
            code, message = answer[0]["error"]
            raise ServingError(Code(code), message)
        return answer

    def _open(self) -> socket.socket:
        """Pass the process one end of a new channel. Raises HungUpError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError as exc:
                ours.close()
                raise HungUpError from exc
        return ours

    def wait(self) -> int:
        """Return the exit code, once it has ended."""
        return self._process.wait()

    def stop(self) -> None:
        """End it (blocking); nobody waits for what it still runs."""
        self._process.kill()
        self._process.wait()
        self.forget()

    def forget(self) -> None:
        """Close what led to a process that has ended."""
        self._control.close()
        while self._idle:
            self._idle.pop().close()


@dataclass(eq=False)
class Loaded:
    """A SavedModel in that process, and how to load it again.

    Attributes:
        signatures: what can be called: `inputs` and `outputs` in order, which of these are `whole`, and
            whether it is `batchable`, by name.
        definitions: a serialized SignatureDefMap of all that the model declares.
        texts: what a string may be that the model is given, the most plausible first.

    """

    number: int
    path: Path
    limits: SessionLimits
    child: _Child | None = None
    signatures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    definitions: bytes = b""
    texts: list[bytes] = field(default_factory=list)

    @property
    def trouble(self) -> str | None:
        """Why it cannot be asked at the moment, if so."""
        child = self.child
        return None if child is not None and child.is_alive else _GONE

    def load(self, child: _Child) -> None:
        """Load it (blocking). Raises ServingError, HungUpError."""
        head = {"do": "load", "model": self.number, "path": str(self.path), "limits": asdict(self.limits)}
        said, arrays = child.ask(head, {})
        self.signatures = said["signatures"]
        (self.definitions,) = arrays["definitions"]
        self.texts = arrays["texts"].tolist()
        self.child = child

    def call(self, signature: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
        """Run a signature (blocking). Raises ServingError: its own, or UNAVAILABLE without the process."""
        child = self.child
        if child is None:
            raise ServingError(Code.UNAVAILABLE, _GONE)
        try:
            return child.ask({"do": "call", "model": self.number, "signature": signature}, arrays)[1]
        except HungUpError as exc:
            raise ServingError(Code.UNAVAILABLE, _GONE) from exc


class Graphs:
    """The SavedModels of a server, in a process of their own. To be used from any thread."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment` is the process's; there should be no credentials in it."""
        self._environment = environment
        self._numbers = count(1)
        self._held: set[Loaded] = set()
        self._child: _Child | None = None
        self._changed = threading.Condition()
        self._closed = threading.Event()

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        child = self._child
        return None if child is None else child.pid

    def load(self, path: Path, limits: SessionLimits) -> Loaded:
        """Load a SavedModel (blocking). Raises ServingError saying why it cannot be loaded."""
        package = find_spec(_NEEDED)
        if package is None or package.origin is None:  # the published messages alone are a namespace
            raise ServingError(
                Code.UNIMPLEMENTED, "It is a SavedModel, and TensorFlow is not installed here; ONNX is served"
            )
        loaded = Loaded(next(self._numbers), path, limits)
        try:
            loaded.load(self._hold(loaded))
        except HungUpError as exc:
            self.release(loaded)
            words = f"The process that runs SavedModels ended while it loaded {path}"
            raise ServingError(Code.UNAVAILABLE, words) from exc
        except BaseException:
            self.release(loaded)
            raise
        return loaded

    def release(self, loaded: Loaded) -> None:
        """Let go of a SavedModel (blocking), and of the process with the last one."""
        with self._changed:
            self._held.discard(loaded)
            child, loaded.child = loaded.child, None
            last = None
            if not self._held:
                last, self._child = self._child, None
                self._changed.notify_all()
        if last is not None:
            last.stop()
        elif child is not None:
            with suppress(HungUpError):
                child.ask({"do": "release", "model": loaded.number}, {})

    def close(self) -> None:
        """End the process (blocking); what it still runs is given up."""
        self._closed.set()
        with self._changed:
            self._held.clear()
            child, self._child = self._child, None
            self._changed.notify_all()
        if child is not None:
            child.stop()

    def _hold(self, loaded: Loaded) -> _Child:
        """Return a process that runs, which does not end before `loaded` is released."""
        with self._changed:
            self._held.add(loaded)
            while self._child is not None and not self._child.is_alive:
                self._changed.wait()  # another is about to take its place
            if self._closed.is_set():
                raise ServingError(Code.UNAVAILABLE, "The server is stopping")
            if self._child is None:
                self._child = _Child(self._environment)
                threading.Thread(
                    target=self._watch, args=(self._child,), name="SavedModels", daemon=True
                ).start()
            return self._child

    def _watch(self, child: _Child) -> None:
        """Wait until the process ends, and start another one, unless it is not needed any more."""
        pause = _FIRST_PAUSE_SECONDS
        while True:
            began = time.monotonic()
            code = child.wait()
            if not self._is_current(child):
                return
            log.error("the process that runs SavedModels has ended", exit_code=code, pid=child.pid)
            child.forget()
            if time.monotonic() - began > STEADY_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            self._closed.wait(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
            with self._changed:
                if child is not self._child:
                    return
                try:
                    child = self._child = _Child(self._environment)
                except OSError:
                    log.exception("the process that runs SavedModels cannot be started")
                    continue
                lost = [loaded for loaded in self._held if loaded.child is not None]
                self._changed.notify_all()
            for loaded in lost:
                threading.Thread(
                    target=self._load_again, args=(loaded, child), name=f"load {loaded.path}", daemon=True
                ).start()

    def _load_again(self, loaded: Loaded, child: _Child) -> None:
        """Load a SavedModel into the process that took the place of the one that it was in."""
        pause = 1.0
        while self._is_current(child) and loaded in self._held:
            try:
                loaded.load(child)
            except HungUpError:
                return
            except ServingError as exc:
                log.error("a SavedModel cannot be loaded again", path=str(loaded.path), error=exc.message)  # noqa: TRY400
            else:
                log.info("a SavedModel is loaded again", path=str(loaded.path))
                break
            self._closed.wait(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)
        with self._changed:
            released = loaded not in self._held
        if released:
            self.release(loaded)

    def _is_current(self, child: _Child) -> bool:
        with self._changed:
            return child is self._child
