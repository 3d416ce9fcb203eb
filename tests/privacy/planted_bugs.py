"""Each planted bug against self-test and audit, many times: `make test-audit`. Minutes; a sample of it is in the suite."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from privacy.audit import audit
from privacy.selftest import run
from privacy.steps import DpSgd, GaussianStep
from tests.privacy.broken import BUGS

CORRECT = "none"


@dataclass(frozen=True)
class Row:
    """How many of `runs` independent runs each witness caught the bug in."""

    bug: str
    runs: int
    selftest: int
    certificate: int
    warning: int
    caught: int                                              # by any of the three

    @property
    def as_it_should_be(self) -> bool:
        """Caught in at least 19 of 20; the correct step in none."""
        return self.caught == 0 if self.bug == CORRECT else 20 * self.caught >= 19 * self.runs


def once(bug: str) -> tuple[bool, bool, bool]:
    """One independent run: noise, coins, patients and weights are all new."""
    step: GaussianStep = DpSgd() if bug == CORRECT else BUGS[bug]()
    found = audit(step)
    return not run(step).passed, found.refuted, found.warned


def one_thread() -> None:
    """Two processes share two cores."""
    torch.set_num_threads(1)


def table(bugs: Sequence[str], runs: int) -> list[Row]:
    """The rows of `bugs`, over two processes."""
    context, tasks = multiprocessing.get_context("spawn"), [bug for bug in bugs for _ in range(runs)]
    with context.Pool(2, initializer=one_thread) as pool:
        results, begun = list[tuple[bool, bool, bool]](), time.monotonic()
        for result in pool.imap(once, tasks):
            results.append(result)
            left = (time.monotonic() - begun) / len(results) * (len(tasks) - len(results))
            sys.stderr.write(f"\r{len(results)} of {len(tasks)} runs, {left:.0f} s left  ")
    rows = []
    for place, bug in enumerate(bugs):
        mine = results[place * runs : (place + 1) * runs]
        rows.append(Row(bug, runs, *(sum(column) for column in zip(*mine, strict=True)), sum(any(row) for row in mine)))
    return rows


def main() -> int:
    """Print the table; 1 if a row is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20)
    rows = table([CORRECT, *BUGS], parser.parse_args().runs)
    sys.stdout.write(f"{'planted bug':36s} {'runs':>5s} {'self-test':>10s} {'f-DP':>6s} {'Gaussian':>9s} {'caught':>7s}\n")
    for row in rows:
        counts = f"{row.runs:5d} {row.selftest:10d} {row.certificate:6d} {row.warning:9d} {row.caught:7d}"
        sys.stdout.write(f"{row.bug:36s} {counts}\n")
    return 0 if all(row.as_it_should_be for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
