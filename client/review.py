"""What joining a plan would mean for this hospital, in words, before anybody agrees to it. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from braing3n_core.agreement import Agreement
from braing3n_core.bundle import installed_digest
from braing3n_core.console import for_programs
from braing3n_core.errors import Braing3nError
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from client.approvals import read_agreement, refuse_other_code
from client.site_file import SiteFile
from privacy.accountant import calibrate, epsilon
from privacy.egress import RefusalCode
from privacy.errors import PrivacyError
from privacy.events import Event, SampledGaussian
from privacy.ledger import Book, read_chain
from privacy.signing import PublicKey


@dataclass(frozen=True)
class Leaves:
    """What one stage sends: one noised array a round, and nothing else that was computed on patients."""

    stage: str
    trainable: str
    messages: int
    numbers: int                                             # float32, in each message

    @property
    def megabytes(self) -> float:
        """All of the stage's messages together, 10^6 bytes."""
        return self.messages * self.numbers * 4 / 1e6


@dataclass(frozen=True)
class Review:
    """One plan against one hospital. It may be approved if `objections` is empty."""

    study: str
    question: str
    digest: str
    site: str
    signer: str                                              # fingerprint of the consortium's key
    version: str
    installed: str
    partners: dict[str, int]                                 # site -> patients it declares
    mechanism: str
    delta: float
    leaves: tuple[Leaves, ...]
    spent: float                                             # epsilon of one patient so far, over all plans
    alone: float                                             # of this plan on its own
    together: float                                          # after it: epsilons do not add up, losses do
    allowed: float                                           # by this hospital's policy, for ever
    objections: tuple[str, ...]

    def as_json(self) -> str:
        """For programs; an infinite epsilon is the text "infinite"."""
        return for_programs({**asdict(self), "may_be_approved": not self.objections})


def review(site: SiteFile, path: Path) -> Review:
    """Read the signed plan in `path` and hold it against this hospital's policy, ledger and installed code."""
    agreement = read_agreement(site, path)
    plan = agreement.plan
    sizes = [len(values) for values in initial_values(load_prior(plan), plan)]
    past, future = _past(site, plan), _events(plan)
    together = epsilon([*past, *future], plan.privacy.delta)
    return Review(
        study=plan.study,
        question=plan.question,
        digest=plan.digest,
        site=site.name,
        signer=PublicKey.load(site.admin_key).fingerprint,
        version=agreement.version,
        installed=version("braing3n"),
        partners={known.name: known.patients for known in plan.sites},
        mechanism=plan.privacy.mechanism,
        delta=plan.privacy.delta,
        leaves=tuple(
            Leaves(stage.name, stage.trainable, stage.rounds, size) for stage, size in zip(plan.stages, sizes, strict=True)
        ),
        spent=epsilon(past, plan.privacy.delta) if past else 0.0,
        alone=epsilon(future, plan.privacy.delta),
        together=together,
        allowed=site.policy.epsilon,
        objections=(*site.policy.objections(plan, site.name), *_cost(site, together), *_code(agreement)),
    )


def in_words(found: Review) -> Iterator[str]:
    """The same for a person: no line needs Python to be understood."""
    yield f"{found.study}: {found.question or 'the plan asks no question'}"
    yield f"plan {found.digest}"
    yield f"signed by the consortium's key {found.signer[:16]}; hold these digits against those you were told"
    yield f"code: braing3n {found.version}, here {found.installed}; no code comes with the plan"
    yield f"with {', '.join(f'{site} ({patients} patients)' for site, patients in found.partners.items())}"
    yield f"what leaves {found.site}, each a noised sum over many patients ({found.mechanism}):"
    for row in found.leaves:
        yield f"  {row.stage:<10} {row.messages} messages of {row.numbers} numbers ({row.trainable}), {row.megabytes:.2f} MB"
    yield f"  and ready, or one of {len(RefusalCode)} fixed words for why not; no scan, table, loss, count, path or error text"
    yield (
        f"cost to one patient at delta {found.delta:g}: spent so far {found.spent:.3g}, this plan alone {found.alone:.3g}, "
        f"together {found.together:.3g} of {found.allowed:g} allowed here"
    )
    yield from (f"forbidden here: {objection}" for objection in found.objections)
    yield "it may not be approved" if found.objections else "it may be approved: braing3n-site approve"


def _events(plan: TrainingPlan) -> list[Event]:
    """Everything the plan would charge, at the noise that this site itself calibrates."""
    rows = [(stage.sample_rate, stage.rounds * stage.local_steps, stage.share) for stage in plan.stages]
    noise = calibrate(rows, plan.privacy.epsilon, plan.privacy.delta)
    return [
        SampledGaussian(stage.name, sigma, stage.sample_rate, stage.rounds * stage.local_steps)
        for stage, sigma in zip(plan.stages, noise, strict=True)
    ]


def _past(site: SiteFile, plan: TrainingPlan) -> list[Event]:
    """What earlier rounds of other plans cost; the rounds of this very plan are in its own future already."""
    path = site.folder / "ledger.jsonl"
    if not path.exists():
        return []
    records, _ = read_chain(path.read_bytes())
    book = Book(plan.privacy.delta)
    for body, digest in records:
        book.apply(body, digest)
    return [held.event for held in book.reservations if not held.purpose.startswith(f"{plan.digest}/")]


def _cost(site: SiteFile, together: float) -> Iterator[str]:
    if not together <= site.policy.epsilon:
        yield f"with what was spent before, a patient comes to epsilon {together:.3g} of {site.policy.epsilon:g} allowed"


def _code(agreement: Agreement) -> Iterator[str]:
    try:
        refuse_other_code(agreement, installed_digest())
    except (Braing3nError, PrivacyError) as error:
        yield str(error)
