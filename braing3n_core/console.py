"""The one place that prints. Every line of a running job carries a mark, so that it can be told from Flower's and Ray's."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MARK = "braing3n | "


def say(text: str) -> None:
    """One marked line of progress on standard output, at once."""
    print(f"{MARK}{text}", flush=True)


def marked(line: str) -> str | None:
    """What `say` was given, if `line` is one of its lines, wherever a log's own prefix put it."""
    _, mark, text = line.rstrip("\n").partition(MARK)
    return text if mark else None


def show(text: str) -> None:
    """A result, on standard output."""
    print(text, flush=True)


def for_programs(value: object) -> str:
    """A result as JSON, which knows no infinity: an infinite number is the word "infinite". NaN raises ValueError."""
    return json.dumps(_worded(value), indent=1, allow_nan=False)


def _worded(value: object) -> object:
    match value:
        case dict():
            return {key: _worded(item) for key, item in value.items()}
        case list() | tuple():
            return [_worded(item) for item in value]
        case float() if value == math.inf:
            return "infinite"
        case _:
            return value


def note(text: str) -> None:
    """Progress or a refusal, on standard error, so that standard output holds results alone."""
    print(text, file=sys.stderr, flush=True)


def counted(what: str, done: int, total: int) -> None:
    """A counter that stays on its line of standard error until it is full."""
    print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def timed(what: str) -> Callable[[int, int], None] | None:
    """A counter with rate and time left on one line of standard error; None if nobody is looking."""
    if not sys.stderr.isatty():
        return None
    started = time.monotonic()

    def tell(done: int, total: int) -> None:
        spent = max(time.monotonic() - started, 1e-3)
        left = spent / done * (total - done)
        text = f"{what}: {done} of {total}, {60 * done / spent:.1f} a minute, {left / 60:.1f} min left"
        print(f"\r{text:<70}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return tell


@contextmanager
def heartbeat(tell: Callable[[str], None], what: str, every_s: float = 9.0) -> Iterator[None]:
    """Tell that `what` is still going on, as long as it is: never ten seconds of silence."""
    over, started = threading.Event(), time.monotonic()

    def beat() -> None:
        while not over.wait(every_s):
            tell(f"{what}, {time.monotonic() - started:.0f} s so far")

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
