"""What joining a plan would mean for this hospital, in words, before anybody agrees to it. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from braing3n_core.agreement import Agreement
from braing3n_core.bundle import installed_digest
from braing3n_core.census import counted_variables
from braing3n_core.census import sizes as bins
from braing3n_core.charges import everything, refuse_weak_fallback, votes
from braing3n_core.console import for_programs
from braing3n_core.data.bids import modalities_of
from braing3n_core.errors import Braing3nError, PlanRefused
from braing3n_core.fit import readings
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import initial_values
from client.approvals import read_agreement, refuse_other_code
from client.site_file import SiteFile
from client.statement import beside
from privacy.accountant import epsilon, epsilon_alone
from privacy.egress import RefusalCode
from privacy.errors import PrivacyError
from privacy.events import Event
from privacy.ledger import Book, read_chain
from privacy.signing import PublicKey
from privacy.witness import Accounts, accounts


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
    read: tuple[str, ...]                                    # modalities of the hospital's scans
    spare: int                                               # of each stage's messages: in place of sums that failed
    counted: tuple[str, ...]                                 # variables whose noisy counts leave once; none: no census
    counts: int                                              # in all
    fits: int                                                # noisy numbers on how well the model fits; 0: none is told
    votes: int                                               # rounds of the vote on copies
    spent: float                                             # epsilon of one patient so far, over all plans
    alone: float                                             # of this plan on its own
    together: float                                          # after it: epsilons do not add up, losses do
    witness: float | None                                    # the same by a second library; None where it knows no bound
    renyi: float                                             # and by Renyi accounting, which is looser
    allowed: float                                           # by this hospital's policy, for ever
    alone_fallback: float                                    # as `alone`, against the server and all other sites together
    fallback: float                                          # as `together`
    fallback_allowed: float
    protection: tuple[str, ...]                              # who is kept from what, in words
    objections: tuple[str, ...]

    def as_json(self) -> str:
        """For programs; an infinite epsilon is the text "infinite"."""
        return for_programs({**asdict(self), "may_be_approved": not self.objections})


def review(site: SiteFile, path: Path) -> Review:
    """Read the signed plan in `path` and hold it against this hospital's policy, ledger and installed code."""
    agreement = read_agreement(site, path)
    plan = agreement.plan
    sizes = [len(values) for values in initial_values(load_prior(plan), plan)]
    past, future, delta = _past(site, plan), everything(plan, sizes), plan.privacy.delta
    together, fallback = accounts([*past, *future], delta), epsilon_alone([*past, *future], delta)
    found = Review(
        study=plan.study,
        question=plan.question,
        digest=plan.digest,
        site=site.name,
        signer=PublicKey.load(site.admin_key).fingerprint,
        version=agreement.version,
        installed=version("braing3n"),
        partners={known.name: known.patients for known in plan.sites},
        mechanism=plan.privacy.mechanism,
        delta=delta,
        leaves=tuple(
            Leaves(stage.name, stage.trainable, stage.rounds + plan.privacy.spare, size)
            for stage, size in zip(plan.stages, sizes, strict=True)
        ),
        read=(*modalities_of(plan.variables), *plan.modalities[1:]),
        spare=plan.privacy.spare,
        counted=tuple(variable.name for variable in counted_variables(plan)) if plan.census else (),
        counts=sum(bins(plan)) if plan.census else 0,
        fits=len(readings(plan)),
        votes=len(votes(plan)),
        spent=epsilon(past, delta) if past else 0.0,
        alone=epsilon(future, delta),
        together=together.claim,
        witness=together.witness,
        renyi=together.renyi,
        allowed=site.policy.epsilon,
        alone_fallback=epsilon_alone(future, delta),
        fallback=fallback,
        fallback_allowed=site.policy.fallback,
        protection=(),
        objections=(
            *site.policy.objections(plan, site.name),
            *_cost(site, together.claim, fallback),
            *_fallback(plan, sizes),
            *_code(agreement),
        ),
    )
    return replace(found, protection=tuple(_protection(found, plan)))


def in_words(found: Review) -> Iterator[str]:
    """The same for a person: no line needs Python to be understood."""
    yield f"{found.study}: {found.question or 'the plan asks no question'}"
    yield f"plan {found.digest}"
    yield f"signed by the consortium's key {found.signer[:16]}; hold these digits against those you were told"
    yield f"code: braing3n {found.version}, here {found.installed}; no code comes with the plan"
    yield f"with {', '.join(f'{site} ({patients} patients)' for site, patients in found.partners.items())}"
    yield f"reads {' and '.join(found.read)} of each patient"
    hidden = ", hidden under masks until it is added to other hospitals'" if found.mechanism == "secure-sum" else ""
    yield f"what leaves {found.site}, each a noised sum over many patients ({found.mechanism}){hidden}:"
    for row in found.leaves:
        yield f"  {row.stage:<10} {row.messages} messages of {row.numbers} numbers ({row.trainable}), {row.megabytes:.2f} MB"
    if found.spare:
        yield f"  {found.spare} of each are spare: asked for only if a sum could not be opened, which is paid and lost"
    if hidden:
        yield "  with each of them public keys, sealed letters and shares of random secrets, made of nothing about patients"
    if found.counted:
        yield f"  census     {found.counts} noised counts of patients, once ({', '.join(found.counted)}), in bins of the plan"
    if found.fits:
        yield f"  fit        {found.fits} noised sums of clipped losses: how well the model fits, before and after each stage"
    if found.votes:
        yield f"  vote       {found.votes} noised words on which candidates of a release look like a patient, a bit for each"
    loss = "exact loss" if found.fits else "loss"
    fixed = f"one of {len(RefusalCode)} fixed words for why not"
    yield f"  and ready, or {fixed}; no scan, table, {loss}, count, path or error text"
    yield (
        f"cost to one patient at delta {found.delta:g}: spent so far {found.spent:.3g}, this plan alone {found.alone:.3g}, "
        f"together {found.together:.3g} of {found.allowed:g} allowed here"
    )
    yield f"  together, {beside(Accounts(found.together, found.witness, found.renyi))}"
    yield from found.protection
    yield from (f"forbidden here: {objection}" for objection in found.objections)
    yield "it may not be approved" if found.objections else "it may be approved: braing3n-site approve"


def _protection(found: Review, plan: TrainingPlan) -> Iterator[str]:
    """What stands between a patient here and whom, in the words of the plan's mechanism."""
    rests_on = plan.privacy.secure_sum
    if rests_on is None:
        yield "against everybody, the server and the other hospitals included: each message is noised here, before it leaves"
        return
    others, some = len(plan.sites) - 1, rests_on.colluding
    yield (
        f"the server sees the sum over at least {plan.federation.quorum} of {others + 1} hospitals, never this one's numbers "
        "alone; recipients see less"
    )
    yield (
        f"this holds against the server and up to {some} other hospital{'' if some == 1 else 's'} that work with it, or for "
        f"themselves, if the other {others - some} are honest; up to {rests_on.dropped} may be missing from a round"
    )
    if some == 0:
        yield "  not even against one other hospital that takes its own numbers off the sum: to it, the next line applies"
    yield (
        f"against the server and all {others} other hospitals together only this hospital's own noise counts: epsilon "
        f"{found.alone_fallback:.3g} by this plan, {found.fallback:.3g} with what was spent, of {found.fallback_allowed:g} "
        f"allowed here; the plan states {rests_on.fallback_epsilon:g}"
    )
    yield "keys that hide the numbers are signed with the hospitals' own, which come with the plan: no server can add another"


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


def _fallback(plan: TrainingPlan, sizes: Sequence[int]) -> Iterator[str]:
    try:
        refuse_weak_fallback(plan, sizes)
    except PlanRefused as error:
        yield str(error)


def _cost(site: SiteFile, together: float, fallback: float) -> Iterator[str]:
    if fallback > together and not fallback <= site.policy.fallback:
        yield (
            f"against the server and all other hospitals together a patient comes to epsilon {fallback:.3g} of "
            f"{site.policy.fallback:g} allowed"
        )
    if not together <= site.policy.epsilon:
        yield f"with what was spent before, a patient comes to epsilon {together:.3g} of {site.policy.epsilon:g} allowed"


def _code(agreement: Agreement) -> Iterator[str]:
    try:
        refuse_other_code(agreement, installed_digest())
    except (Braing3nError, PrivacyError) as error:
        yield str(error)
