"""`braing3n-sim bench release`: seconds and memory of each step from a trained model to a signed release, at several sizes.

The untouched prior stands for the trained model and phantom hospitals for the sites; each step is what its command runs. The
floor of `generate` is its arithmetic (floor.py); of `gate`, to read all candidates once; of `build`, to pack what is released.
"""

from __future__ import annotations

import gzip
import json
import math
import resource
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from braing3n_core.data.hospital import write_hospital
from braing3n_core.data.volume import gzipped
from braing3n_core.generate import batch_for
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.state import save
from client.attest import Check
from client.release import approve_release, cast_vote, sign_ledger
from client.site import Site
from privacy.signing import SigningKey
from server.release import candidates as pool
from server.release.policy import Policy
from server.release.publish import RELEASE
from server.release.seal import seal
from server.release.stages import build, gate, generate_candidates
from server.release.verify import verify
from simulations.bench.floor import FLOAT, Machine, Work, flops

Say = Callable[[str], None]
STEPS = ("generate", "vote", "gate", "build", "sign", "verify")
_TIMED = ("generate", "gate", "build", "sign")               # what one waits for at the consortium
_PATIENTS = 24                                               # of each site
_VOTE = 3.5                                                  # epsilon: a lone vote is lost in 2.9 %
_CHECK = Check("rehearsal, no person", 1, "acceptable")


@dataclass(frozen=True)
class Row:
    """One size. `peak_mb` is the most memory that this process ever held so far, 10^6 bytes: sizes go up.

    Processor seconds, of all threads, are what the work costs however many others share the machine; wall time is not.
    """

    volumes: int
    candidates: int
    wall: dict[str, float] = field(default_factory=dict)     # step -> seconds
    processor: dict[str, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)    # step -> processor seconds it needs here at least
    peak_mb: float = 0.0
    release_mb: float = 0.0

    @property
    def waited(self) -> float:
        """Wall time of generate, gate, build and sign, s."""
        return sum(self.wall[step] for step in _TIMED)

    @property
    def worked(self) -> float:
        """Processor time of the same, s."""
        return sum(self.processor[step] for step in _TIMED)


def bench(plan: TrainingPlan, counts: Sequence[int], out: Path, say: Say) -> list[Row]:
    """One row for each of `counts`, smallest first. `out` holds one run for each; a run that is there is made anew."""
    rows = []
    for count in sorted(counts):
        say(f"{count} volumes")
        run = _run(out, count)
        shutil.rmtree(run, ignore_errors=True)
        rows.append(_measured(_sized(plan, count), run, say))
        say("\n".join(told(rows[-1:])))
    # Last, because what they need would be in the peaks of the sizes that follow.
    return [replace(row, least=_least(_sized(plan, row.volumes), row.candidates, _run(out, row.volumes))) for row in rows]


def _run(out: Path, count: int) -> Path:
    return out / f"release-{count}"


def told(rows: Sequence[Row]) -> Iterator[str]:
    """The table for people."""
    yield "processor seconds of each step and of a volume; wall time of generate, gate, build and sign together"
    head, tail = f"{'volumes':>8}{'candidates':>12}", f"{'a volume':>10}{'wall s':>8}{'peak MB':>9}{'MB':>6}"
    yield head + "".join(f"{step:>10}" for step in STEPS) + tail
    for row in rows:
        steps = "".join(f"{row.processor[step]:10.1f}" for step in STEPS)
        sizes = f"{row.worked / row.volumes:10.2f}{row.waited:8.0f}{row.peak_mb:9.0f}{row.release_mb:6.0f}"
        yield f"{row.volumes:8d}{row.candidates:12d}{steps}{sizes}"
        if row.least:
            times = {step: row.processor[step] / least for step, least in row.least.items()}
            yield "times the floor: " + ", ".join(f"{step} {ratio:.1f}" for step, ratio in times.items())


def as_json(rows: Sequence[Row]) -> str:
    """The table for programs."""
    return json.dumps([asdict(row) | {"waited": row.waited, "worked": row.worked} for row in rows], indent=1)


def _sized(plan: TrainingPlan, count: int) -> TrainingPlan:
    """The plan with `count` people, cells in proportion, small sites and a vote."""
    cells, whole = plan.release.cells, sum(cell.count for cell in plan.release.cells)
    edges = [round(count * sum(cell.count for cell in cells[: i + 1]) / whole) for i in range(len(cells))]
    sizes = [after - before for before, after in zip([0, *edges[:-1]], edges, strict=True)]
    wanted = tuple(cell.model_copy(update={"count": n}) for cell, n in zip(cells, sizes, strict=True) if n)
    sites = tuple(site.model_copy(update={"patients": _PATIENTS}) for site in plan.sites)
    privacy = plan.privacy.model_copy(update={"vote_epsilon": _VOTE})
    return plan.but(privacy=privacy, sites=sites, release=plan.release.model_copy(update={"cells": wanted}))


def _measured(plan: TrainingPlan, run: Path, say: Say) -> Row:
    run.mkdir(parents=True)
    (run / "plan.json").write_text(plan.canonical(), encoding="utf-8")
    save(run / "model.safetensors", load_prior(plan).state_dict(), {"plan": plan.digest, "preset": plan.preset})
    sites, clock, policy = _sites(plan, run), _Clock(), Policy.load()
    votes, ledgers, approvals = ([run / f"{name}.{kind}.json" for name in sites] for kind in ("vote", "ledger", "approval"))
    with clock("generate"):
        made = generate_candidates(run, policy, say)
    with clock("vote"):
        for (name, (site, key)), ballot, ledger in zip(sites.items(), votes, ledgers, strict=True):
            cast_vote(site, made, 1, ballot)
            sign_ledger(site.folder, name, plan.digest, key, ledger)
    with clock("gate"):
        candidates = gate(run, policy, votes, ledgers).candidates
    with clock("build"):
        release = build(run, policy, None, votes, ledgers)
    for (name, (site, key)), approval in zip(sites.items(), approvals, strict=True):
        approve_release(release, site.folder, name, key, _CHECK, approval)
    key = SigningKey.generate()
    with clock("sign"):
        seal(release, key, [json.loads(path.read_bytes()) for path in approvals])
    with clock("verify"):
        verify(release, key.public)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    size = sum(path.stat().st_size for path in release.rglob("*") if path.is_file()) / 1e6
    count = sum(cell.count for cell in plan.release.cells)
    return Row(count, candidates, clock.wall, clock.processor, peak_mb=peak, release_mb=size)


def _least(plan: TrainingPlan, count: int, run: Path) -> dict[str, float]:
    machine, model, rules = Machine.measured(torch.get_num_threads()), load_prior(plan), Policy.load().rules.copies
    few = pool.candidates(plan.release, plan.variables, rules, voted=True)[:batch_for(plan.model)]
    each = flops(lambda: pool.volumes_of(plan, model, few)) / len(few)
    volume = FLOAT * math.prod(plan.model.shape)
    made, read = Work(count * each, count * volume), Work(0, count * volume)
    packing = sum(_packed(path) for path in (run / RELEASE).rglob("*.nii.gz"))
    return {"generate": machine.least(made), "gate": machine.least(read), "build": packing}


def _packed(path: Path) -> float:
    """Processor seconds that it takes to pack a file's content again."""
    content = gzip.decompress(path.read_bytes())
    began = time.process_time()
    gzipped(content)
    return time.process_time() - began


def _sites(plan: TrainingPlan, run: Path) -> dict[str, tuple[Site, SigningKey]]:
    found = {}
    for site in plan.sites:
        write_hospital(run / "hospitals" / site.name, site, plan)
        folder = run / "sites" / site.name
        found[site.name] = Site(site.name, plan, folder, run / "hospitals" / site.name), SigningKey.generate()
    return found


@dataclass
class _Clock:
    """Wall and processor time by step."""

    wall: dict[str, float] = field(default_factory=dict)
    processor: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        wall, processor = time.monotonic(), time.process_time()
        yield
        self.wall[step], self.processor[step] = time.monotonic() - wall, time.process_time() - processor
