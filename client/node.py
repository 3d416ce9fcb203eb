"""Flower's SuperNode in a process that ends when its work does.

When its main loop stops, Flower's own process stays alive and offline for ever: its HTTP thread holds it. This one ends, so
that `braing3n-site join` can start it again.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from flwr.supernode.cli.flower_supernode import flower_supernode

_AGAIN = 75                                                  # EX_TEMPFAIL of sysexits.h


def main() -> NoReturn:
    """Run the SuperNode with this process's arguments."""
    try:
        flower_supernode()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_AGAIN)


if __name__ == "__main__":
    main()
