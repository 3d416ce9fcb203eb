"""A whole run: who is there, round after round, a checkpoint each, the release at the end, and the exit code on disk.

How sites are reached is the caller's: Flower's grid (server/app.py) or plain calls in one process (simulations/federation.py).
"""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Protocol

import numpy as np

from braing3n_core.errors import OK, UNEXPECTED, PlanRefused, ReplyRefused, exit_code
from braing3n_core.files import write_atomically
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import Request, finished, initial_values
from braing3n_core.state import save
from server import checkpoint, fit, lock, monitor
from server.coordinator import FOR_GOOD, Coordinator, Header, RoundReport, State
from server.lost_sums import in_words, lost_sums, spare_spent
from server.sum_round import summed_round

Reply = tuple[str, Header, np.ndarray | None]                # site, header, values
Say = Callable[[str], None]
Prior = Callable[[TrainingPlan], Brain]
Release = Callable[[Brain, Mapping[str, float]], None]       # the finished model, and what each site said it spent
_HEARTBEAT_S = 9.0                                           # never ten seconds of silence
_ENDING_S = 30.0                                             # for a killed run's last process to end
_BREATH_S = 3.0                                              # never more than this many lines


class Sites(Protocol):
    """How the server reaches the sites. Both calls yield replies as they come, and None whenever nothing came for a moment."""

    def ready(self) -> Iterator[Reply | None]:
        """Ask every site whether it can take part."""

    def ask(self, requests: Mapping[str, Request]) -> Iterator[Reply | None]:
        """Ask each of these sites for one round, or one step of it."""


class Progress:
    """Lines that say where a run is and how long it will take; at least one in ten seconds, at most one in three."""

    def __init__(self, plan: TrainingPlan, say: Say, now: Callable[[], float] = monotonic) -> None:
        self._say, self._now = say, now
        self._total: dict[str, int] = {stage.name: stage.rounds for stage in plan.stages}
        self._last = -math.inf
        self._started: dict[str, tuple[float, int]] = {}     # stage -> when, and its first round of this session

    def line(self, text: str) -> None:
        """Say something now."""
        self._last = self._now()
        self._say(text)

    def waiting(self, text: str) -> None:
        """Say something unless something was said a moment ago."""
        if self._now() - self._last >= _HEARTBEAT_S:
            self.line(text)

    def round(self, stage: str, number: int, replied: int, sites: int, closed: bool, messages: int = 0) -> None:
        """Where the run is; `closed` when the round just ended, after so many `messages`."""
        began, first = self._started.setdefault(stage, (self._now(), number))
        done = number - first + closed
        rate = (self._now() - began) / done if done else math.nan
        last = closed and number == self._total[stage]
        if last or self._now() - self._last >= (_BREATH_S if closed else _HEARTBEAT_S):
            speed = f", {messages} messages" if messages else ""
            speed += f", {rate:.1f} s a round" if done else ""
            if done and not last:
                speed += f", {stage} ends in {_span(rate * (self._total[stage] - number))}"
            self.line(f"{stage}: round {number} of {self._total[stage]}, {replied} of {sites} sites replied{speed}")


def run(plan: TrainingPlan, out: Path, sites: Sites, say: Say, release: Release, prior: Prior = load_prior) -> int:
    """Conduct `plan` into `out` and return the documented exit code, which is in <out>/run.json too.

    A folder that holds an unfinished run of the same plan is taken up at its newest checkpoint. Raises UsageError while
    another run works in it: what a killed run left behind in other processes ends within moments.
    """
    out.mkdir(parents=True, exist_ok=True)
    with lock.held(out, _ENDING_S):
        return _conducted(plan, out, sites, say, release, prior)


def _conducted(plan: TrainingPlan, out: Path, sites: Sites, say: Say, release: Release, prior: Prior) -> int:
    code, error, started = OK, "", monotonic()
    sums: dict[str, object] = {}
    try:
        say(f"artefacts: {out}")
        (out / "run.json").unlink(missing_ok=True)
        claim(plan, out)
        state = train(plan, out, sites, Progress(plan, say), prior).state
        sums = _sums_lost(plan, out, say)
        release(_kept(plan, out, state, prior(plan)), state.spent)
    except BaseException as failure:  # noqa: BLE001 - the true end of a run is written down whatever it was
        code, error = exit_code(failure), _in_a_line(failure)
        say(f"stopped: {error}")
        if code == UNEXPECTED:
            (out / "server.log").write_text(traceback.format_exc(), encoding="utf-8")
            say(f"nobody foresaw this {type(failure).__name__}; please report it with {out / 'server.log'}")
    verdict = {"exit_code": code, "error": error, "plan": plan.digest, "seconds": round(monotonic() - started, 1), **sums}
    write_atomically(out / "run.json", (json.dumps(verdict, indent=1) + "\n").encode())
    monitor.ended(out, verdict)
    return code


def train(plan: TrainingPlan, out: Path, sites: Sites, progress: Progress, prior: Prior = load_prior) -> Coordinator:
    """Every round that is still to do, each with its checkpoint and its line in rounds.jsonl."""
    state = checkpoint.newest(out / "checkpoints", plan.digest)
    run = Coordinator(plan, initial_values(prior(plan), plan), state)
    if run.done:
        return run
    if state:
        progress.line(f"taking up the run at {run.stage.name}, round {run.state.rounds + 1}")
    monitor.begun(plan, out, run.state.stage, run.state.rounds)
    gone = _roll_call(run, sites, progress)
    while not run.done:
        if run.state.rounds == 0:
            fit.ask(run, sites, progress, out, "before", gone)
        began = monotonic()
        for site, (why, code) in gone.items():
            run.refuse(site, why, code)
        if plan.privacy.secure_sum:
            messages = summed_round(run, sites, progress, out / "checkpoints")
        else:
            messages = _one_round(run, sites, progress)
        report = run.close_round()
        if report.round == plan.stage(report.stage).rounds:
            fit.ask(run, sites, progress, out, "after", gone)
        checkpoint.write(out / "checkpoints", plan.digest, run.state)
        row = _row(report, run) | {"messages": messages, "seconds": round(monotonic() - began, 1)}
        _append(out / "rounds.jsonl", row)
        monitor.round_closed(plan, out, row)
        progress.round(report.stage, report.round, len(report.replied), len(plan.sites), closed=True, messages=messages)
    return run


def _sums_lost(plan: TrainingPlan, out: Path, say: Say) -> dict[str, object]:
    """Tell which secure sums were paid and lost over the whole run, and what stood in for them; the same for run.json."""
    if plan.privacy.secure_sum is None:
        return {}
    lost = lost_sums(out / "checkpoints")
    for line in in_words(plan, lost):
        say(line)
    return {"lost_sums": len(lost), "spare_rounds_spent": sum(spare_spent(plan, lost).values())}


def _kept(plan: TrainingPlan, out: Path, state: State, model: Brain) -> Brain:
    """The prior brought to the end of the run; it is on disk too."""
    finished(model, plan, state.values)
    save(out / "model.safetensors", model.state_dict(), {"plan": plan.digest, "preset": plan.preset})
    return model


def claim(plan: TrainingPlan, out: Path) -> None:
    """One folder, one plan: what it says is written beside what it makes. Raises PlanRefused if another plan began there."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "plan.json"
    if path.exists() and TrainingPlan.from_json(path.read_text(encoding="utf-8")).digest != plan.digest:
        raise PlanRefused(f"{out.name} holds a run of another plan; use another output folder, or the plan that began there")
    write_atomically(path, plan.canonical().encode())


def _roll_call(run: Coordinator, sites: Sites, progress: Progress) -> dict[str, tuple[str, str]]:
    """Wait until every site is ready or the deadline is over; who refused for good, and why."""
    names = [site.name for site in run.plan.sites]
    deadline, ready = monotonic() + run.plan.federation.deadline_s, list[str]()
    progress.line(f"waiting for {', '.join(names)} to get ready; the first time reads and aligns every scan")
    for reply in sites.ready():
        if reply is not None:
            site, header, _ = reply
            if header.get("kind") == "ready" and header.get("plan") == run.plan.digest and site in names:
                ready.append(site)
                progress.line(f"{site} is ready")
            else:
                run.note_refusal(site, header)
                progress.line(f"{site} is not ready: {run.refused.get(site, 'not a site of the plan')}")
        if set(ready) | set(run.refused) >= set(names) or not monotonic() < deadline:
            break
        progress.waiting(f"waiting for {', '.join(n for n in names if n not in ready)} to get ready")
    run.need_quorum(len(set(ready)), "ready")
    gone = {site: (why, run.codes[site]) for site, why in run.refused.items() if run.codes[site] in FOR_GOOD}
    run.forget_round()
    return gone


def _one_round(run: Coordinator, sites: Sites, progress: Progress) -> int:
    """Ask, and take what comes until everybody spoke or the deadline is over; how many messages went to and fro."""
    request, deadline = run.request(), monotonic() + run.plan.federation.deadline_s
    messages = len(run.waiting)
    for reply in sites.ask(dict.fromkeys(run.waiting, request)):
        if reply is not None:
            messages += 1
            _take(run, reply, progress)
        progress.round(request.stage, request.round, len(run.replies), len(run.plan.sites), closed=False)
        if not run.waiting or not monotonic() < deadline:
            break
    return messages


def _take(run: Coordinator, reply: Reply, progress: Progress) -> None:
    site, header, values = reply
    if header.get("kind") != "update":
        run.note_refusal(site, header)
        progress.line(f"{site} gives no update: {run.refused.get(site, 'not a site of the plan')}")
        return
    try:
        run.accept(site, header, values)
    except ReplyRefused as error:
        progress.line(str(error))


def _row(report: RoundReport, run: Coordinator) -> dict[str, object]:
    """One line of rounds.jsonl. Nothing in it was measured on patients; infinity, no JSON number, is written in words."""
    spent = {site: value if math.isfinite(value) else "infinite" for site, value in run.state.spent.items()}
    return {
        "stage": report.stage,
        "round": report.round,
        "replied": list(report.replied),
        "refused": dict(report.refused),
        "missing": list(report.missing),
        "numbers": report.numbers,
        "epsilon": spent,
    }


def _append(path: Path, row: dict[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        if file.tell() and not path.read_bytes().endswith(b"\n"):
            file.write("\n")                                 # a line that a crash cut short
        file.write(json.dumps(row, sort_keys=True, allow_nan=False) + "\n")


def _in_a_line(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
