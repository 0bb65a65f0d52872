"""Two machines on one kernel: network namespaces with a cable between them that can be pulled out.

They are made beneath a user namespace of their own, so they need no root, and touch nothing of the host's
network. What holds them or runs in them is tied to a pipe of this process, and ends with it in any case.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

CENTRAL, EDGE = "10.77.0.1", "10.77.0.2"
CABLE = "link0"
MAC = "02:00:0a:4d:00:01"
NEW = ("unshare", "--user", "--map-root-user", "--net")
SECONDS = 20.0


def missing() -> str:
    """Say what this machine lacks for it; "" where nothing is."""
    programs = ("unshare", "nsenter", "ip", "curl")
    if lacking := [program for program in programs if shutil.which(program) is None]:
        return f"there is no {' or '.join(lacking)} here (Debian: util-linux, iproute2, curl)"
    trial = ("ip", "link", "add", CABLE, "type", "veth", "peer", "name", "link1")
    try:
        tried = subprocess.run([*NEW, *trial], capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "network namespaces cannot be made here: no answer"
    said = " ".join(tried.stderr.split()) or f"exit code {tried.returncode}"
    return f"network namespaces cannot be made here: {said}" if tried.returncode else ""


class Namespace:
    """A network namespace, held by a process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def inside(self, *command: str) -> list[str]:
        """Return the words that run a command there."""
        return [
            *("nsenter", f"--target={self.pid}", "--user", "--net", "--preserve-credentials", "--"),
            *command,
        ]

    def run(self, *command: str) -> str:
        """Run a short command there; return what it prints."""
        done = subprocess.run(
            self.inside(*command), capture_output=True, text=True, check=False, timeout=SECONDS
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout


class Network:
    """Central and the edge, each with a loopback of its own, and the cable between them."""

    def __init__(self, central: Namespace, edge: Namespace) -> None:
        self.central = central
        self.edge = edge

    def lay(self) -> None:
        """Lay the cable; it is not plugged in yet."""
        for namespace in (self.central, self.edge):
            namespace.run("ip", "link", "set", "lo", "up")
        ends = ("address", MAC, "type", "veth", "peer", "name", CABLE, "netns", str(self.edge.pid))
        self.central.run("ip", "link", "add", CABLE, *ends)
        self.central.run("ip", "address", "add", f"{CENTRAL}/30", "dev", CABLE)
        self.edge.run("ip", "address", "add", f"{EDGE}/30", "dev", CABLE)
        self.edge.run("ip", "link", "set", CABLE, "up")
        # With a neighbour who is never asked for, a packet to a pulled cable vanishes as behind any router.
        # Else the kernel would answer in its place, after three seconds, that there is no way.
        neighbour = ("ip", "neighbour", "add", CENTRAL, "lladdr", MAC, "dev", CABLE, "nud", "permanent")
        self.edge.run(*neighbour)

    def cut(self) -> None:
        """Pull the cable out at central: nothing is refused, everything hangs."""
        self.central.run("ip", "link", "set", CABLE, "down")

    def mend(self) -> None:
        """Plug it in again."""
        self.central.run("ip", "link", "set", CABLE, "up")


@contextmanager
def network() -> Iterator[Network]:
    """Make both namespaces; the cable is laid, and not plugged in."""
    with ExitStack() as stack:
        central = Namespace(stack.enter_context(_held(NEW)))
        edge = Namespace(stack.enter_context(_held(central.inside("unshare", "--net"))))
        both = Network(central, edge)
        both.lay()
        yield both


@contextmanager
def _held(words: Sequence[str]) -> Iterator[int]:
    with subprocess.Popen([*words, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(b"there\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == b"there\n"  # cat answers from inside
        yield holder.pid
        holder.stdin.close()
