"""`braing3n-site doctor --selftest`: is the code that trains here private? On made-up patients; nothing is read or charged."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from client.findings import Finding
from privacy.audit import Audit, audit
from privacy.errors import MechanismRefused
from privacy.secure_sum import noisy_sum
from privacy.selftest import SelfTest, run
from privacy.steps import DpSgd
from privacy.sum_selftest import run_sum

_FIX = "take part in nothing; install the approved version again and tell the consortium"


def selftest() -> list[Finding]:
    """The invariants of a step and of a secure sum's numbers, then an attack on many steps at a low epsilon. Seconds."""
    step = DpSgd()
    return [*_invariants(run(step)), *_invariants(run_sum(noisy_sum)), _attack(audit(step))]


@cache
def refuse_broken_step() -> None:
    """Raise MechanismRefused unless the invariants of the step hold, in this process, on this machine. A tenth of a second.

    A process that passed is not asked again: its code stays what it was.
    """
    _refuse(run(DpSgd()))


@cache
def refuse_broken_sum() -> None:
    """The same of the numbers that a site adds to a secure sum, whose step it tests as well."""
    refuse_broken_step()
    _refuse(run_sum(noisy_sum))


def _refuse(found: SelfTest) -> None:
    broken = [one.check for one in _invariants(found) if one.state == "refused"]
    if broken:
        raise MechanismRefused(f"the self-test found broken: {', '.join(broken)}; run braing3n-site doctor --selftest")


def _invariants(found: SelfTest) -> Iterator[Finding]:
    for one in found.findings:
        yield Finding(one.invariant, "ok", one.found) if one.holds else Finding(one.invariant, "refused", one.found, _FIX)


def _attack(found: Audit) -> Finding:
    """A refuted claim is broken code; the sharper bound, which takes canaries of one run for independent, only warns."""
    words = (
        f"epsilon {found.claimed:.2f} is claimed, an attacker proves {max(found.one_run, found.f_dp):.2f}, "
        f"and {found.gaussian:.2f} if canaries are independent"
    )
    if found.refuted:
        return Finding("canary audit", "refused", words, _FIX)
    if found.warned:
        return Finding("canary audit", "look", words, "run it again; if it says so twice, tell the consortium")
    return Finding("canary audit", "ok", words)
