"""A process with everything loaded, which forks itself for each message.

Flower's SuperExec starts a program for every message, and torch takes longer to load than many a round takes to train. So
`braing3n-site join` keeps this process beside its node. It loads what a round needs and uses none of it: each message has a
fork of its own, whose memory nobody saw before and whose noise is keyed by the operating system after the fork.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_PLACE, _SOCKET = "flower", "warm"                           # below the site's folder
_USED_BY_A_ROUND = ("client.clientapp", "client.answer", "opacus.accountants.analysis.prv")
_KILLED = 137                                                # as a shell says of SIGKILL


def main(folder: str, key: str) -> NoReturn:
    """Fork for every caller. Callers are this user's: nobody else may write to the socket."""
    os.umask(0o077)
    with socket.socket(socket.AF_UNIX) as door, _address(folder) as address:
        Path(address).unlink(missing_ok=True)
        door.bind(address)
        door.listen()                                        # callers wait while this process loads
        for module in _USED_BY_A_ROUND:
            importlib.import_module(module)
        gc.freeze()                                          # forks share what was loaded
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)        # a fork that ended is taken away by the kernel
        while True:
            caller, _ = door.accept()
            if os.fork() == 0:
                _work(caller, folder, key)
            caller.close()


def call(folder: str, key: str) -> None:
    """Have this process's arguments worked on by a fork, and live as long as it does; without one, work here."""
    with socket.socket(socket.AF_UNIX) as warm:
        try:
            with _address(folder) as address:
                warm.connect(address)
            warm.sendall(json.dumps(sys.argv).encode() + b"\n")
        except OSError as error:
            sys.stderr.write(f"no process is warm ({error.strerror}); loading anew\n")
        else:
            with contextlib.suppress(OSError):               # a fork that was killed may reset what it leaves
                warm.recv(1)
            return
    from client import clientapp  # noqa: PLC0415 - Flower takes seconds to load, and a caller does not need it

    clientapp.main(folder, key)


def _work(caller: socket.socket, folder: str, key: str) -> NoReturn:
    """One message, in a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    from client import clientapp  # noqa: PLC0415 - loaded long ago

    sys.argv = json.loads(caller.makefile("rb").readline())
    threading.Thread(target=_end_with, args=(caller,), daemon=True).start()
    clientapp.main(folder, key)


def _end_with(caller: socket.socket) -> None:
    """A caller that was killed takes its fork along: to Flower they are one process."""
    with contextlib.suppress(OSError):
        caller.recv(1)
    os._exit(_KILLED)


@contextlib.contextmanager
def _address(folder: str) -> Iterator[str]:
    """The site's socket, by a name that is short enough for the kernel, which takes 107 characters."""
    place = os.open(Path(folder) / _PLACE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{place}/{_SOCKET}"
    finally:
        os.close(place)


if __name__ == "__main__":
    main(*sys.argv[1:])
