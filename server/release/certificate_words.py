"""The 47 statements of a privacy certificate, in the order in which regulators and auditors ask for them.

Where something is not known the statement says so; none is left out. Never a legal finding, never a promise that the guarantee
does not make. Duties: NIST SP 800-226; EDPB Opinion 28/2024; STANDING Together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from braing3n_core.census import counted_variables
from braing3n_core.charges import secure_sum
from braing3n_core.data.template import SPACE
from braing3n_core.fit import readings
from braing3n_core.plan import T1W, TrainingPlan
from server.release.accounts import Account, worst_fallback
from server.release.edition import NOT_RECORDED, Edition
from server.release.gates import Gate, verdict
from server.release.shown import listed

SECTIONS = {
    "A": "Identity", "B": "Nature", "C": "Source", "D": "What is promised", "E": "What is not protected",
    "F": "Empirical tests", "G": "Utility and fairness", "H": "Governance",
}  # fmt: skip
ARTIFICIAL = "All images are artificial, made by a generator; none is a patient's scan."
EVIDENCE = "This certificate is technical evidence for the controllers' own assessment; it is not a legal finding of anonymity."
FALSE_ALARMS = 0.01                                         # false-positive rate of the adversary in the plain words


@dataclass(frozen=True)
class Known:
    """What the statements are made of."""

    plan: TrainingPlan
    edition: Edition
    images: int
    policy: str                                              # digest
    accounts: Sequence[Account]
    gates: Sequence[Gate]
    quality: Sequence[str]                                   # numbers of the quality panel, in words
    generator: bool = False                                  # whether the trained networks are in the release


def statements(known: Known) -> Iterator[tuple[str, str, str]]:
    """(section, title, text), 47 of them, in order."""
    for section, rows in (
        ("A", _identity(known)), ("B", _nature(known)), ("C", _source(known)), ("D", _promise(known)),
        ("E", _not_protected(known)), ("F", _tests(known)), ("G", _utility(known)), ("H", _governance(known)),
    ):  # fmt: skip
        yield from ((section, title, text) for title, text in rows)


def meaning(epsilon: float, delta: float) -> tuple[float, float]:
    """What (epsilon, delta) allows an adversary who knows everything else: (posterior from 50 %, true positives at 1 % false).

    Posterior e^eps / (1 + e^eps); true positives at false-positive rate f at most min(e^eps f + delta,
    1 - e^-eps (1 - delta - f)) (Kairouz, Oh, Viswanath, ICML 2015).
    """
    factor = math.exp(min(epsilon, 700.0))
    caught = min(factor * FALSE_ALARMS + delta, 1 - (1 - delta - FALSE_ALARMS) / factor, 1.0)
    return factor / (1 + factor), caught


def worst(accounts: Sequence[Account]) -> tuple[str, float]:
    """The site whose patients spent most, and what."""
    return max(((row.site, _number(row.epsilon)) for row in accounts), key=lambda pair: pair[1], default=("no site", math.inf))


def _identity(known: Known) -> list[tuple[str, str]]:
    edition = known.edition
    return [
        ("Release", f"{edition.name}, issued {edition.issued}, to be reviewed by {edition.review_by}"),
        ("Contents", f"{known.images} images; their digests are in SHA256SUMS, their root digest is the subject of model.sig"),
        ("Issuer", f"{edition.issuer}; contact {edition.contact}; controllers: the sites; protection officers {NOT_RECORDED}"),
        ("Policy", f"docs/policy.toml, version 1, SHA-256 {known.policy}"),
        ("Software", f"braing3n {version('braing3n')}; what else made it is in the report under Provenance"),
    ]


def _nature(known: Known) -> list[tuple[str, str]]:
    return [
        ("Artificial", ARTIFICIAL),
        ("Marking", "each image says so in its name (desc-synthetic), its sidecar (SyntheticData) and its header (descrip)"),
        ("Use", "developing and rehearsing methods. Prohibited: diagnosis or treatment, finding out whether somebody "
                "was a patient, claims about any one person"),
        ("Not synthetic", f"the space {SPACE} and the brain region come from a public template; nothing is copied from scans"),
    ]  # fmt: skip


def _source(known: Known) -> list[tuple[str, str]]:
    plan = known.plan
    phantoms = "phantom hospitals made by software, for practice; no patient took part" if plan.rehearsal else "hospitals"
    total = sum(site.patients for site in plan.sites)
    even = "T1w made as even as the template, " if plan.data.registration == "affine" else ""
    return [
        ("Sites", f"{len(plan.sites)} {phantoms}; {_modalities(plan)}; countries, inclusion and period {NOT_RECORDED}"),
        ("Patients", f"about {_banded(total)} patients, declared by the sites before training and never counted from data"),
        ("Legal basis", f"ethics references and impact assessments of the sites: {NOT_RECORDED}"),
        ("Preprocessing", f"skull-stripped by the sites, registered ({plan.data.registration}), resampled, {even}intensities "
                          f"scaled, {plan.data.held_out:.0%} of patients held out"),
        ("Objections", f"patients' objections honoured until: {NOT_RECORDED}"),
    ]  # fmt: skip


def _promise(known: Known) -> list[tuple[str, str]]:
    plan, (site, epsilon) = known.plan, worst(known.accounts)
    private = plan.privacy.private and math.isfinite(epsilon)
    if not private:
        return [(title, "no differential privacy: nothing is promised") for title in _PROMISES]
    sure, caught = meaning(epsilon, plan.privacy.delta)
    stages = "; ".join(
        f"{s.name}: rate {s.sample_rate:g}, {s.rounds} rounds of {s.local_steps} steps, clip {s.clip:g}" for s in plan.stages
    )
    if plan.census:
        stages += f"; census: every patient once, noised counts of {', '.join(v.name for v in counted_variables(plan))}"
    if told := readings(plan):
        stages += f"; fit: every patient in each of {len(told)} noised sums of clipped losses"
    signed = all(row.head is not None for row in known.accounts)
    ledgers = (
        "everything in each site's ledger: all stages, failed and repeated rounds, the vote on copies, any earlier study of "
        "the same patients"
        if signed
        else "what the server saw and what sites said they spent: not every site signed its ledger"
    )
    words = _summed(known) if plan.privacy.secure_sum else _LOCAL
    texts = [
        f"{words.mechanism}. Unit: one patient with all scans and visits. Neighbours: add or remove one patient",
        "each patient's gradient is the mean over that patient's scans and is clipped once; no scan is dropped",
        f"(epsilon = {epsilon:.3g}, delta = {plan.privacy.delta:g}) at patient level{words.fallback}; delta times a site's "
        f"patients is at most {max(plan.privacy.delta * s.patients for s in plan.sites):.2g}; accountant {words.accountant}, "
        "votes added",
        f"noise multipliers are in the events of each site; sampling is Poisson, as the accountant assumes; {stages}",
        f"highest at {site}; every site's own value is in its row",
        f"{ledgers}. Quality numbers of held-out patients are outside it",
        f"the operating system's generator; draws cannot be seeded or replayed. {words.randomness}",
        words.trust,
        f"an adversary with any side knowledge who sees {words.seen} and every file here"
        f"{', the trained weights among them' if known.generator else '. Weights are not in the release'}",
        f"somebody who thinks it an even chance that a given patient took part can become at most {_percent(sure)} sure; "
        f"a test that wrongly accuses 1 % of others recognises at most {_percent(caught)} of participants",
    ]  # fmt: skip
    return list(zip(_PROMISES, texts, strict=True))


@dataclass(frozen=True)
class _Words:
    """What differs between mechanisms."""

    mechanism: str
    fallback: str
    accountant: str
    randomness: str
    trust: str
    seen: str


_LOCAL = _Words(
    "DP-SGD at each site on its own", "", "PRV", "The low-order bits of floating-point noise are not hardened",
    "each site adds its own noise before anything leaves it. Trusted: the site itself. Not trusted: the server, other sites, "
    "recipients", "every message a site sent",
)  # fmt: skip


def _summed(known: Known) -> _Words:
    rests_on, others, fallback = secure_sum(known.plan), len(known.plan.sites) - 1, worst_fallback(known.accounts)
    alone = "without bound" if fallback is None or isinstance(fallback, str) else f"epsilon = {fallback:.3g}"
    return _Words(
        "DP-SGD over the sites together: one step a round, on a masked sum of whole numbers with shares of Skellam noise",
        f" against the server and up to {rests_on.colluding} sites; against the server and all {others} other sites together "
        f"{alone} at the same delta, {rests_on.fallback_epsilon:g} agreed",
        "Renyi", "The noise is whole numbers, so it has no low-order bits; its draws are exact to about 1e-13",
        "each site adds a share of the noise and hides its numbers until they are added up. Trusted: the site itself, and that "
        f"at least {others - rests_on.colluding} of the {others} others are honest. Not trusted: the server, "
        f"{rests_on.colluding} other sites, recipients",
        f"every message of all sites and the secrets of {rests_on.colluding} of them",
    )  # fmt: skip


_PROMISES = (
    "Mechanism and unit", "Contribution bound", "Epsilon and delta", "Noise and sampling", "Per site", "Composition",
    "Randomness", "Trust", "Adversary", "In plain words",
)  # fmt: skip


def _not_protected(known: Known) -> list[tuple[str, str]]:
    panel = "the quality panel, measured on held-out patients of a rehearsal; " if known.quality else ""
    return [
        ("Populations", "what the images teach about people in general holds for every reader, patient or not"),
        ("Sites", "a site's scanner, habits and mix of patients are not hidden"),
        ("Groups and families", "k related patients are protected by k times epsilon; a patient of two sites by the sum"),
        ("Breaches", "theft of the scans themselves, or of a site's computers"),
        ("Figures outside the guarantee", f"{panel}that a round failed at a site; each site's approval of the release"),
        ("Rare anatomy", "a synthetic brain may look unusual or, by chance, like somebody; looking alike is not taking part"),
        ("Weights", _weights(known)),
        ("Other units", "scans, visits and physicians as units of their own"),
    ]


def _weights(known: Known) -> str:
    if not known.generator:
        return "the generator is not in this release; nothing is said about giving it away"
    said = "the generator is given away too (generator/), a decision of its own in each site's approval. "
    if not known.plan.privacy.private:
        return f"{said}Nothing is promised about its weights"
    return (
        f"{said}Its weights come from a public prior and from what sites sent, so what is promised holds for them and for "
        "all that is drawn from them; the gates do not: no site votes on what a recipient draws, and nobody looks at it"
    )


def _tests(known: Known) -> list[tuple[str, str]]:
    gates = {gate.name: gate for gate in known.gates}
    vote = gates["copies"]
    detail = ", ".join(f"{name} {value:.4g}" for name, value in vote.numbers.items())
    return [
        ("Attacks", "no membership or attribute attack was run for this release"),
        ("Copies", f"{vote.found}. Detector braing3n_core.likeness, threshold from public pairs alone. {detail}".strip()),
        ("Audited epsilon", "no empirical lower bound was measured for this release"),
        ("Faces and skulls", f"{gates['anatomy'].found}; signal outside the widened template brain is refused"),
        ("Tables", f"participants.tsv is drawn from the plan's cells{_and_census(known.plan)}: no row is about a patient"),
    ]


def _utility(known: Known) -> list[tuple[str, str]]:
    return [
        ("Fidelity", "; ".join(known.quality) or "not measured: a server has no patients to measure it on"),
        ("Training on synthetic data", "not measured"),
        ("Subgroups", "counts per subgroup are in the report; errors per subgroup are not. Small groups are drawn worse"),
        ("Known failures", f"generated brains are smoother than scans; see the images in the report{_unmeasured(known.plan)}"),
    ]


def _governance(known: Known) -> list[tuple[str, str]]:
    signed = [row.site for row in known.accounts if row.head is not None]
    approvals = (
        f"{len(signed)} of {len(known.plan.sites)} sites signed their ledger; their approvals are in attestations.intoto.jsonl"
        if signed else "no site signed: the figures are what the server saw, and nobody but the issuer stands for them"
    )  # fmt: skip
    gates = "; ".join(f"{gate.name}: {gate.found}" for gate in known.gates)
    return [
        ("Approvals", approvals),
        ("Gates", f"{verdict(known.gates)}. {gates}. No waivers"),
        ("Verification", "braing3n-admin verify DIR --key release.pub; or docs/recipient.md of the project for other tools"),
        ("Reproducibility", f"release seed {known.plan.release.seed}; images repeat on one stack, training does not"),
        ("Maintenance", f"version {known.edition.version}; revocation by signed notice (verify --revocations FILE); claims of "
                        f"memorisation to {known.edition.contact}"),
        ("Status", EVIDENCE),
    ]  # fmt: skip


def _modalities(plan: TrainingPlan) -> str:
    return f"modality {T1W}" if plan.modalities == (T1W,) else f"modalities {listed(plan.modalities)}"


def _unmeasured(plan: TrainingPlan) -> str:
    """What no gate says of other modalities."""
    others = listed(plan.modalities[1:]) if len(plan.modalities) > 1 else ""
    return others and f". {others}: size, edges, pieces and likeness were judged; tissues, ventricles and lesions were not"


def _and_census(plan: TrainingPlan) -> str:
    return " and the sites' noisy census" if plan.release.follow == "census" else " alone"


def _banded(count: int) -> str:
    """To one digit: enough for a reader, too little to count anybody by."""
    if count < 10:
        return "fewer than 10"
    scale = 10 ** (len(str(count)) - 1)
    return str(round(count / scale) * scale)


def _percent(share: float) -> str:
    """Never rounded up to 100 % while something is left."""
    return f"{100 * share:.0f} %" if share <= 0.99 else f"{math.floor(1e4 * share) / 100:.2f} %"


def _number(value: float | str) -> float:
    return math.inf if isinstance(value, str) else value
