"""What one hospital does when a server asks. No network: client/app.py and the simulations call the same object."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from time import monotonic

import numpy as np
import torch

from braing3n_core.charges import Charge, charges, refuse_weak_fallback, secure_sum
from braing3n_core.data.cohort import Cohort, load_cohort
from braing3n_core.errors import IntegrityError, PlanRefused, ReplyRefused, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.journal import journal
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import Request, at_stage, digest_of, initial_values
from braing3n_core.training import Prepared, drawn_once, prepare
from client.census import take
from client.enrolled import Enrolled
from client.fit import tell
from client.local_round import Charged, train_round
from client.refusal import StaleRequest, note, refuse
from client.secure_round import Turn
from client.selftest import refuse_broken_step
from client.vote import Ballot, cast
from privacy.dp_sgd import trainable
from privacy.egress import Cleared, Egress, Ready, Update, purpose_of
from privacy.events import NonPrivate, SampledGaussian, SecureSummed
from privacy.ledger import Ledger, Reservation
from privacy.randomness import Randomness, ReplayableNoise, SecretNoise

__all__ = ["Site", "refuse"]
ModelSource = Callable[[TrainingPlan], Brain]
CohortSource = Callable[[Path, TrainingPlan, Path], Cohort]  # scans, plan, cache


class Site:
    """One site of one plan.

    Rules
    * Another plan, or a stage or round the plan does not have, is refused; so is a round older than one already answered.
    * Before the first round of a run the step is tested on made-up patients; a step that is not private trains nobody.
    * A round is reserved in the ledger, whole, before a gradient is taken; noise is calibrated here, never taken from a server.
    * A round that was answered is answered with the same bytes, at no charge. A round cut short by a crash takes its
      reservation up again. A round that failed after it was reserved stays charged, so asking again costs again.
    * Held-out patients are never trained on.
    * What goes wrong leaves as a fixed code; the words stay in <folder>/site.log.

    The ledger is locked while a request is worked on, and free between requests. Ctrl-C is passed on.
    """

    def __init__(
        self,
        name: str,
        plan: TrainingPlan,
        folder: Path,
        bids: Path,
        limit: float | None = None,
        *,
        fallback: float | None = None,
        enrolled: Enrolled | None = None,
        model_source: ModelSource = load_prior,
        cohort_source: CohortSource = load_cohort,
    ) -> None:
        self.name, self.plan, self.folder, self.bids = name, plan, folder, bids
        self._declared = plan.site(name).patients
        if not (limit is None or limit > 0):
            raise UsageError(f"the site's own limit is epsilon={limit}; give a positive number, or none to follow the plan")
        self._own_limit = math.inf if limit is None else limit
        self._own_fallback, self._enrolled = math.inf if fallback is None else fallback, enrolled
        self._model_source, self._cohort_source = model_source, cohort_source
        self._prepared: tuple[str, list[Prepared]] = ("", [])

    def ready(self) -> Cleared:
        """Whether this site can take part: its prior, ledger and scans are there. Reads all scans; costs nothing."""
        return self._answered(self._ready)

    def round(self, request: Request) -> Cleared:
        """This site's answer to one round, or to how well the model fits: what was paid for, or a refusal."""
        return self._answered(lambda ledger, egress: self._round(ledger, egress, request))

    def vote(self, ballot: Ballot) -> Cleared:
        """This site's word on which candidates of a release are copies of its patients: paid-for noisy bits, or a refusal."""
        return self._answered(lambda ledger, egress: cast(self, ledger, egress, ballot))

    def census(self) -> Cleared:
        """How many of this site's patients are in each bin of the plan's census: paid-for noisy counts, or a refusal."""
        return self._answered(lambda ledger, egress: take(self, ledger, egress))

    @property
    def cohort(self) -> Cohort:
        """The site's scans, read once. Never leaves the site."""
        return self._cohort

    @property
    def limit(self) -> float:
        """The most epsilon this site may ever spend on this plan: the plan's or its own, whichever is less."""
        if self.plan.privacy.mechanism == "non-private":
            if self.plan.rehearsal is None:
                raise PlanRefused('mechanism "non-private" is for rehearsals only; choose "local" and an epsilon')
            return math.inf
        return min(self.plan.privacy.epsilon, self._own_limit)

    @property
    def fallback_limit(self) -> float:
        """The same against the server and all other sites together: of a plan with secure sums, or this site's own."""
        return min(secure_sum(self.plan).fallback_epsilon, self._own_fallback)

    @property
    def enrolled(self) -> Enrolled:
        """Whose keys count in a secure sum. Raises UsageError if this site was given none."""
        if self._enrolled is None:
            raise UsageError("a secure sum needs the sites' keys, and this site was given none; join with `join`")
        return self._enrolled

    def event(self, stage: Stage) -> Charge:
        """What one round of `stage` costs."""
        return self.charge(stage.name)

    def charge(self, name: str) -> Charge:
        """What one round of the stage so named costs, or the census, or one number on a stage."""
        return self._charges[name]

    def model(self) -> Brain:
        """The public prior, fresh."""
        return self._model_source(self.plan)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many numbers each stage trains."""
        return tuple(len(values) for values in initial_values(self.model(), self.plan))

    @cached_property
    def _charges(self) -> dict[str, Charge]:
        return charges(self.plan, self.sizes if self.plan.privacy.secure_sum else ())

    @cached_property
    def _cohort(self) -> Cohort:
        cohort = self._cohort_source(self.bids, self.plan, self.folder / "cache")
        for excluded in cohort.excluded:
            note(self.folder, f"left out {excluded.file}: {excluded.reason}")
        return cohort

    @cached_property
    def order(self) -> dict[str, int]:
        """Purpose of every round of the plan -> its place in the run."""
        rounds = [(stage.name, number) for stage in self.plan.stages for number in range(1, stage.rounds + 1)]
        return {purpose_of(self.plan.digest, stage, number): place for place, (stage, number) in enumerate(rounds)}

    def _answered(self, work: Callable[[Ledger, Egress], Cleared]) -> Cleared:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with Ledger(self.folder / "ledger.jsonl", self.plan.privacy.delta) as ledger:
                answer = work(ledger, Egress(ledger, self.folder / "audit.jsonl", self.name))
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, only a fixed code may leave
            answer = refuse(self.name, self.folder, error)
        journal(self.folder, "answered", answer.header)
        return answer

    def _ready(self, ledger: Ledger, egress: Egress) -> Cleared:
        for stage in self.plan.stages:
            self.event(stage)
        if self.plan.privacy.secure_sum:
            refuse_weak_fallback(self.plan, self.sizes)
            _ = self.enrolled.own(), self.enrolled.roster()
        self.model()
        _ = self.limit, self._cohort
        return egress.send(Ready(self.name, self.plan.digest))

    def _round(self, ledger: Ledger, egress: Egress, request: Request) -> Cleared:
        # 1. Is it a round of this plan, and not one that was answered or passed?
        stage, purpose = self._asked(request)
        if request.end is not None:
            return tell(self, ledger, egress, request, stage, request.end)
        if self.plan.privacy.mechanism == "secure-sum":
            return Turn(self, ledger, egress, request, stage).answer()
        answered = [r for r in ledger.reservations if r.purpose == purpose and ledger.released(r) is not None]
        if answered:
            return self._again(ledger, egress, request, answered[0])
        self._refuse_stale(ledger, purpose)
        # 2. Do the values fit the model, and are there patients? Neither depends on what the server could learn by asking.
        model = self.model()
        at_stage(model, self.plan, stage.name, request.values)
        _, event, limit = self._cohort, self.event(stage), self.limit
        if isinstance(event, SecureSummed):
            raise PlanRefused("this plan's rounds are secure sums; the sender has another plan")
        # 3. Before this site's first round of a run: is the code that trains here still private?
        if isinstance(event, SampledGaussian):
            self.refuse_broken_code(ledger)
        # 4. Pay, then train. What fails from here on was seen by nobody but may depend on patients: it stays paid.
        reservation = ledger.standing(event, purpose) or ledger.reserve(event, purpose, limit)
        try:
            values = self._trained(model, stage, event, request)
            write_atomically(self.kept(reservation), request.digest.encode() + values.astype("<f4").tobytes())
            return egress.send(self._update(request, request.digest, reservation, values), _trainable_size(model))
        except Exception:
            ledger.abandon(reservation)
            raise

    def _asked(self, request: Request) -> tuple[Stage, str]:
        if request.plan != self.plan.digest:
            raise PlanRefused("the request names another plan than the one this site runs; approve that plan first")
        stage = self.plan.stage(request.stage)
        if not (type(request.round) is int and 1 <= request.round <= stage.rounds):
            raise PlanRefused(f"stage {stage.name} has {stage.rounds} rounds and no other; ask for one of them")
        if request.part is not None and self.plan.privacy.mechanism != "secure-sum":
            raise PlanRefused("the request is for a secure sum, which the plan does not take; the sender has another plan")
        if not (type(request.values) is np.ndarray and request.values.dtype == np.float32 and request.values.ndim == 1):
            raise ReplyRefused("the request's values are not one float32 array; the sender runs another version")
        return stage, purpose_of(request.plan, stage.name, request.round)

    def _refuse_stale(self, ledger: Ledger, purpose: str) -> None:
        places = [self.order[r.purpose] for r in ledger.reservations if r.purpose in self.order and ledger.released(r)]
        if not self.order[purpose] > max(places, default=-1):
            raise StaleRequest("this site already answered a later round; resume the run from its newest checkpoint")

    def refuse_broken_code(self, ledger: Ledger) -> None:
        """Test the private step before this site's first round of a run. Raises MechanismRefused if it is broken."""
        if not any(r.purpose in self.order and ledger.released(r) for r in ledger.reservations):
            refuse_broken_step()

    def _again(self, ledger: Ledger, egress: Egress, request: Request, reservation: Reservation) -> Cleared:
        """The answer that was given before, from this site's own folder."""
        try:
            kept = self.kept(reservation).read_bytes()
        except OSError as error:
            raise IntegrityError("the answer to this round is gone; restore the site's folder, or skip the round") from error
        start, values = kept[:64].decode("ascii", "replace"), np.frombuffer(kept[64 : len(kept) // 4 * 4], dtype="<f4")
        if digest_of(values) != ledger.released(reservation):
            raise IntegrityError("the answer to this round was changed; restore the site's folder, or skip the round")
        return egress.send(self._update(request, start, reservation, values), len(values))

    def _update(self, request: Request, start: str, reservation: Reservation, values: np.ndarray) -> Update:
        return Update(self.name, self.plan.digest, request.stage, request.round, start, reservation, values)

    def kept(self, reservation: Reservation, kind: str = "f32") -> Path:
        """Where the value that `reservation` pays for is kept, to be sent again."""
        folder = self.folder / "answers"
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder / f"{reservation.digest}.{kind}"

    def _trained(self, model: Brain, stage: Stage, event: Charged, request: Request) -> np.ndarray:
        randomness, generator = self._randomness(event, request)
        patients = self.patients_at(model, stage, request.values)
        began = monotonic()
        changed = train_round(model, stage, patients, self._declared, event, randomness, generator)
        # How long it took depends on the patients: for the site's own eyes.
        trained = {"stage": stage.name, "round": request.round, "seconds": round(monotonic() - began, 2)}
        journal(self.folder, "trained", trained)
        return changed

    def patients_at(self, model: Brain, stage: Stage, values: np.ndarray) -> list[Prepared]:
        """Training patients as the stage sees them, kept as long as the earlier stages' tensors stay the same."""
        earlier = values[: len(values) - _trainable_size(model)]
        key = f"{stage.name}/{digest_of(earlier)}"
        if self._prepared[0] != key:
            self._prepared = ("", [])                        # two stages' tensors never share the memory
            self._prepared = (key, list(self._seen(model, stage)))
        return self._prepared[1]

    def _seen(self, model: Brain, stage: Stage) -> Iterator[Prepared]:
        event, place = self.event(stage), f"{self.plan.seed}/{self.name}/{stage.name}"
        for one in self._cohort.training:
            found = prepare(stage.name, model, one.scans, one.others)
            if stage.once:                                   # draws of the patient's own, whoever else is there
                found = drawn_once(found, stage, model, _draws(event, f"{place}/{one.participant}"))
            yield found

    def _randomness(self, event: Charged, request: Request) -> tuple[Randomness, torch.Generator]:
        """Draws for patients and noise, and for masks, times and views.

        The guarantee rests on the first alone. The second is unpredictable too under a mechanism, so that nobody can replay
        what a release was made from; a rehearsal without privacy repeats both exactly.
        """
        text = f"{self.plan.seed}/{self.name}/{request.stage}/{request.round}"
        secret = isinstance(event, SampledGaussian)
        return SecretNoise() if secret else ReplayableNoise(_seed(text)), _draws(event, text)


def _draws(event: Charge, text: str) -> torch.Generator:
    """Nobody can foresee them under a mechanism; without one they follow from `text`."""
    seed = _seed(text) + 1 if isinstance(event, NonPrivate) else int.from_bytes(os.urandom(7))
    return torch.Generator().manual_seed(seed)


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])


def _trainable_size(model: Brain) -> int:
    return sum(tensor.numel() for tensor in trainable(model).values())
