"""A machine without a network, for everything that is started inside: only loopback leads somewhere.

A network namespace with loopback and a pair of interfaces that lead to each other, one of them the default route. Whoever asks
for an address outside sends a packet there, and packets are counted; a question to a resolver on loopback meets a closed port.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NEW_NETWORK = 0x40000000                                    # CLONE_NEWNET, sched.h
OUTSIDE = "outside"                                          # the interface; nothing is at its other end


def sent_outside() -> int:
    """Packets that left for the outside, and datagrams nobody on loopback waited for, since the network was cut."""
    packets = Path("/proc/thread-self/net/dev").read_text().split(f"{OUTSIDE}:")[1].split()[8]
    names, values = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if line[:4] == "Udp:"]
    return int(packets) + int(dict(zip(names, values, strict=True))["NoPorts"])


@contextmanager
def cut_network() -> Iterator[bool]:
    """Inside, this thread and what it starts have no network; False where the machine does not allow it, and nothing is cut."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if shutil.which("ip") is None or libc.unshare(_NEW_NETWORK) != 0:
            yield False
            return
        try:
            yield _only_loopback()
        finally:
            if libc.setns(before, _NEW_NETWORK) != 0:
                raise OSError(ctypes.get_errno(), "the network cannot be had back")
    finally:
        os.close(before)


def _only_loopback() -> bool:
    words = (
        "link set lo up",
        f"link add {OUTSIDE} type veth peer name nowhere",
        f"link set {OUTSIDE} addrgenmode none arp off multicast off",
        "link set nowhere addrgenmode none arp off multicast off",
        f"addr add 192.0.2.1/24 dev {OUTSIDE}",
        "link set nowhere up",
        f"link set {OUTSIDE} up",
        f"route add default dev {OUTSIDE}",
    )
    return all(subprocess.run(["ip", *each.split()], check=False, capture_output=True).returncode == 0 for each in words)
