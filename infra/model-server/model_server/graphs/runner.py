"""The process that runs SavedModels, with the real TensorFlow.

Standard input is a socket over which the server passes one socket for each call that it may make at a time:
what is asked there is answered there, by a thread of its own. When that socket ends, so does the process.
"""

import gc
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from caravan.graphs.limits import SessionLimits
from caravan.graphs.session import GraphSession
from caravan.graphs.tf_examples import plausible_texts
from model_server.dataflow import batchable, whole_outputs
from model_server.errors import Code, ServingError, from_exception
from model_server.graphs.messages import Arrays, Head, HungUpError, encode, receive, send
from model_server.stubs import get_model_metadata_pb2

_MAX_SOCKETS = 1


@dataclass
class Runner:
    """The SavedModels that are loaded, by the numbers that the server gave them."""

    sessions: dict[int, GraphSession] = field(default_factory=dict)

    def answer(self, head: Head, arrays: Arrays) -> tuple[Head, Arrays]:
        """Do what is asked (blocking). Raises ServingError."""
        number = head["model"]
        if head["do"] == "call":
            return {}, self._call(number, head["signature"], arrays)
        if head["do"] == "load":
            return self._load(number, Path(head["path"]), SessionLimits(**head["limits"]))
        self._release(number)
        return {}, {}

    def _call(self, number: int, signature: str, arrays: Arrays) -> Arrays:
        session = self.sessions.get(number)
        if session is None:
            raise ServingError(Code.CANCELLED, "Session has been closed.")
        try:
            return session.signatures[signature].call(arrays)
        except (tf.errors.OpError, TypeError, ValueError) as exc:
            raise from_exception(exc) from exc

    def _load(self, number: int, path: Path, limits: SessionLimits) -> tuple[Head, Arrays]:
        try:
            session = GraphSession.load(path, limits)
        except tf.errors.OpError as exc:
            raise from_exception(exc) from exc
        except Exception as exc:  # a damaged SavedModel makes the loader raise almost anything
            raise ServingError(Code.INTERNAL, f"Cannot load SavedModel at {path}: {exc}") from exc
        self.sessions[number] = session
        return describe(session)

    def _release(self, number: int) -> None:
        session = self.sessions.pop(number, None)
        if session is not None:
            session.close()
            del session
            gc.collect()


def describe(session: GraphSession) -> tuple[Head, Arrays]:
    """Say what a SavedModel offers: its signatures, and what a string may be that it is given."""
    signatures = {}
    for name, signature in session.signatures.items():
        whole = whole_outputs(signature.definition, session.graph)
        signatures[name] = {
            "inputs": signature.inputs,
            "outputs": signature.outputs,
            "whole": sorted(whole),
            "batchable": batchable(signature.definition, whole),
        }
    definitions = get_model_metadata_pb2.SignatureDefMap(signature_def=session.definitions)
    return {"signatures": signatures}, {
        "definitions": _strings([definitions.SerializeToString()]),
        "texts": _strings(plausible_texts(session.graph)),
    }


def _strings(values: list[bytes]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def serve(channel: socket.socket, runner: Runner) -> None:
    """Answer what is asked over a channel until it ends."""
    with channel, suppress(HungUpError):
        while True:
            _answer(channel, runner)


def _answer(channel: socket.socket, runner: Runner) -> None:
    head, arrays = receive(channel)
    try:
        answer = encode(*runner.answer(head, arrays))
    except Exception as exc:  # noqa: BLE001 it is whoever asked that has to know
        error = from_exception(exc)
        answer = encode({"error": [int(error.code), error.message]}, {})
    send(channel, answer)


def main() -> None:
    """Take channels until there can be no more, then end at once: nobody waits for what still runs."""
    runner = Runner()
    with socket.socket(fileno=0) as control:
        while True:
            word, descriptors, _, _ = socket.recv_fds(control, 1, _MAX_SOCKETS)
            if not word:
                os._exit(0)
            for descriptor in descriptors:
                channel = socket.socket(fileno=descriptor)
                threading.Thread(target=serve, args=(channel, runner), daemon=True).start()
