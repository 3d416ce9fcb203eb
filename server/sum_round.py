"""Rounds whose sites hide their numbers in a secure sum: asked for step by step, and again with fresh keys where that helps.

What is known of the open sum is in <checkpoints>/open-sum.safetensors, from before its keys are asked for: no attempt has the
number of another, and a run cut short after sites have paid goes on with what they paid for. Sums that were paid and lost are
written down (server/lost_sums.py); a plan may have spare rounds in their place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from braing3n_core.charges import terms
from braing3n_core.errors import IntegrityError, ReplyRefused
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.state import load, save
from privacy.egress import RefusalCode
from privacy.errors import BudgetExhausted, SumRefused
from privacy.secure_sum import Terms
from server.coordinator import FOR_GOOD, Coordinator, spent_by
from server.lost_sums import LostSum, add, lost_sums
from server.summing import Summing

if TYPE_CHECKING:
    from server.conduct import Progress, Reply, Sites

_FILE: Final = "open-sum.safetensors"
_ENDS: Final = {RefusalCode.SUM_REFUSED, RefusalCode.STALE_REQUEST, *FOR_GOOD}       # after other words it is asked again
_ATTEMPTS: Final = 3                                         # at one round, in one session: each may cost the sites a round


def summed_round(run: Coordinator, sites: Sites, progress: Progress, folder: Path) -> int:
    """Bring the open round to where it can close, or raise what keeps it from that; how many messages went to and fro."""
    try:
        return _attempts(run, sites, progress, folder)
    except BudgetExhausted as error:
        if not (lost := len(lost_sums(folder))):
            raise
        raise BudgetExhausted(
            f"{error}; {lost} secure sums were paid and lost, and a plan with spare = {lost + run.plan.privacy.spare} in "
            "[privacy.secure_sum] has rounds in their place"
        ) from error


def _attempts(run: Coordinator, sites: Sites, progress: Progress, folder: Path) -> int:
    messages, summing = 0, _paid_for(run, folder)
    for _ in range(_ATTEMPTS):
        summing = summing or _begun(run, folder)
        messages += _through(run, summing, sites, progress, folder)
        if summing.done:
            run.accept_sum(_opened(run, summing, folder), sorted(summing.arrived))
            return messages
        _lose(run, summing, folder)
        progress.line(f"{run.stage.name}: this sum cannot be opened any more; another one, with fresh keys")
        run.forget_refusals()
        summing = None
    run.need_quorum(0, f"stayed in one of {_ATTEMPTS} sums")
    return messages


def _lose(run: Coordinator, summing: Summing, folder: Path) -> None:
    """Write down that this attempt is lost, if anybody's numbers have come: before that it cost nobody anything."""
    if summing.arrived:
        paid = tuple(sorted(summing.arrived))
        add(folder, LostSum(stage=run.stage.name, round=run.state.rounds + 1, attempt=summing.attempt, paid=paid))


def _through(run: Coordinator, summing: Summing, sites: Sites, progress: Progress, folder: Path) -> int:
    """Step after step, until the sum is done or hopeless. Raises WaitingForSites when too few speak in time."""
    messages = 0
    while not summing.done:
        messages += _step(run, summing, sites, progress)
        if not summing.enough:
            if summing.hopeless and not run.beyond_help:
                return messages
            run.need_quorum(len(summing.spoken), f"took step {summing.step!r} of the secure sum")
        summing.close_step()
        _keep(run, summing, folder)
    return messages


def _step(run: Coordinator, summing: Summing, sites: Sites, progress: Progress) -> int:
    """Ask, and take what comes until everybody spoke, too few can, or the deadline is over."""
    asked, heard, deadline = summing.requests(), set[str](), monotonic() + run.plan.federation.deadline_s
    messages = len(asked)
    for reply in sites.ask(asked):
        if reply is not None:
            messages += 1
            heard.add(reply[0])
            _take(run, summing, reply, progress)
        progress.round(run.stage.name, run.state.rounds + 1, len(summing.spoken), len(run.plan.sites), closed=False)
        if asked.keys() <= heard or summing.hopeless or not monotonic() < deadline:
            break
    return messages


def _take(run: Coordinator, summing: Summing, reply: Reply, progress: Progress) -> None:
    site, header, values = reply
    if header.get("kind") == "refusal" and site in summing.waiting:
        run.note_refusal(site, header)
        if header.get("code") in _ENDS:
            summing.lost.add(site)
        progress.line(f"{site} does not take step {summing.step!r} of the secure sum: {run.refused[site]}")
        return
    try:
        summing.accept(site, header, values)
    except ReplyRefused as error:
        if site in summing.lost:
            run.refuse(site, str(error))
        progress.line(str(error))
        return
    run.forgive(site)
    if header.get("kind") == "masked":
        run.spent[site] = spent_by(header)


def _begun(run: Coordinator, folder: Path) -> Summing:
    """A sum with a number of its own, which is on disk before a site hears of it."""
    summing = _fresh(run, _last_attempt(run, folder) + 1)
    _keep(run, summing, folder)
    return summing


def _paid_for(run: Coordinator, folder: Path) -> Summing | None:
    """The sum of the open round that a run cut short had asked numbers for, if there is one."""
    if not (record := _recorded(run, folder)) or json.loads(record[0])["step"] in ("keys", "letters"):
        return None
    summing = Summing.resumed(_terms(run, json.loads(record[0])["attempt"]), run.request(), *record)
    summing.lost |= set(run.refused)
    return summing


def _fresh(run: Coordinator, attempt: int) -> Summing:
    return Summing(_terms(run, attempt), run.request(), attempt, lost=set(run.refused))


def _terms(run: Coordinator, attempt: int) -> Terms:
    return terms(run.plan, [len(values) for values in run.initial], run.stage, run.state.rounds + 1, attempt)


def _opened(run: Coordinator, summing: Summing, folder: Path) -> np.ndarray:
    """What the sum does to the stage's numbers, (size,) float32: one step of descent, for the optimizer to take.

    A sum that is no sum of patients and noise stops the run: another attempt would cost every site a round, and end like this.
    """
    try:
        total = summing.total()
        refuse_implausible(total, summing.terms)
    except SumRefused as error:
        _lose(run, summing, folder)
        _keep(run, _fresh(run, summing.attempt), folder)     # never taken up: the next one has a number of its own
        raise IntegrityError(
            f"the secure sum over {', '.join(sorted(summing.arrived))} was spoiled by one of them or on the way ({error}); "
            "find out by whom before you start again, it costs each of them a round"
        ) from error
    return descent(run.plan, run.stage, summing.terms, total, sorted(summing.arrived))


def refuse_implausible(total: np.ndarray, terms: Terms) -> None:
    """Raise SumRefused if `total` (size,) is beyond what twice the declared patients, and noise to 12 deviations, can make.

    Masks that did not cancel leave numbers all over 32 bits, far beyond.
    """
    noise = math.sqrt(terms.share_variance * len(terms.sites))
    if not np.linalg.norm(total) <= 2 * terms.most_patients * terms.whole_l2_bound + (math.sqrt(terms.size) + 12) * noise:
        raise SumRefused("its numbers are larger than patients and noise can make them")


def descent(plan: TrainingPlan, stage: Stage, terms: Terms, total: np.ndarray, sites: Sequence[str]) -> np.ndarray:
    """(size,) float32: minus the learning rate times the mean gradient. The divisor is public: rate times DECLARED patients."""
    expected = stage.sample_rate * sum(plan.site(site).patients for site in sites)
    change: np.ndarray = (-stage.learning_rate / (terms.scale * expected) * total).astype(np.float32)
    return change


def _keep(run: Coordinator, summing: Summing, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    about = {**_about(run), "record": summing.record()}
    save(folder / _FILE, {"summed": torch.from_numpy(summing.summed.view(np.int32))}, about)


def _recorded(run: Coordinator, folder: Path) -> tuple[str, np.ndarray] | None:
    """The record of the open round's newest sum and what was added up; None if there is none of this round."""
    if not (folder / _FILE).exists():
        return None
    tensors, about = load(folder / _FILE)
    if {key: about.get(key) for key in _about(run)} != _about(run):
        return None
    return about["record"], tensors["summed"].numpy().view(np.uint32)


def _last_attempt(run: Coordinator, folder: Path) -> int:
    record = _recorded(run, folder)
    return int(json.loads(record[0])["attempt"]) if record else 0


def _about(run: Coordinator) -> dict[str, str]:
    return {"plan": run.plan.digest, "stage": run.stage.name, "round": str(run.state.rounds + 1)}
