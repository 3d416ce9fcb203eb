"""From a finished run to a release in steps that may be days apart: candidates out, the sites' words in, then the folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from braing3n_core.candidate_files import PART, Candidates, part_path, read_candidates, write_part
from braing3n_core.errors import IntegrityError, PlanRefused, UsageError
from braing3n_core.generate import generate, noise_of
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.state import load
from braing3n_core.strict_json import parsed
from privacy.signing import PublicKey
from server.finish import provenance, read_rounds
from server.release.accounts import Sealed, opened_ledger
from server.release.candidates import Candidate, candidates
from server.release.edition import Edition
from server.release.gates import Votes
from server.release.inputs import SitePrivacy, site_privacy
from server.release.policy import Policy
from server.release.publish import Extras, is_voted_on, publish
from server.release.tables import BidsType

FOLDER = "candidates"
Say = Callable[[str], None]
Prior = Callable[[TrainingPlan], Brain]


def generate_candidates(run: Path, policy: Policy, say: Say, prior: Prior = load_prior) -> Path:
    """Make the candidates of a finished run, part by part; parts that are there already are kept. Returns their folder.

    A candidate depends on the plan's seed and its own index alone, so a stopped call goes on where it was, to the same bytes.
    """
    plan, model = finished_run(run, prior)
    pool, folder = _pool(plan, policy), run / FOLDER
    noise = noise_of(model, plan.release.seed, len(pool))
    for first in range(0, len(pool), PART):
        if not part_path(folder, first).exists():
            part = slice(first, first + PART)
            rows = [one.person.conditions for one in pool[part]]
            release = plan.release
            made = generate(model, rows, release.seed, steps=release.steps, guidance=release.guidance, noise=noise[part])
            write_part(folder, plan.digest, policy.rules.copies.threshold, first, len(pool), made)
            say(f"candidates: {min(first + PART, len(pool))} of {len(pool)}")
    return folder


def build(
    run: Path,
    policy: Policy,
    edition: Edition | None,
    votes: Sequence[Path],
    ledgers: Sequence[Path],
    *,
    kind: BidsType = "derivative",
    prior: Prior = load_prior,
) -> Path:
    """Gate the candidates with what the sites sent and write <run>/release. Refused as `publish` refuses."""
    plan, model = finished_run(run, prior)
    made = read_candidates(run / FOLDER)
    if not (made.plan == plan.digest and made.threshold == policy.rules.copies.threshold):
        raise PlanRefused("the candidates were made for another plan or policy; remove their folder and generate them again")
    words = _Words(plan, _seals(plan, ledgers), _votes(plan, votes, made))
    extras = Extras(rounds=read_rounds(run), provenance=provenance())
    edition = edition or Edition.today(plan.study)
    return publish(plan, model, run, words, edition, policy=policy, extras=extras, kind=kind, replace=True, made=made.volumes)


def finished_run(run: Path, prior: Prior) -> tuple[TrainingPlan, Brain]:
    """The plan and the trained model of a run. Raises PlanRefused or IntegrityError if it is not finished, or not one run."""
    try:
        plan = TrainingPlan.from_json((run / "plan.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise PlanRefused(f"no run is in {run.name}; name the output folder of a finished run") from error
    model = prior(plan)
    tensors, about = load(run / "model.safetensors")
    if about.get("plan") != plan.digest:
        raise IntegrityError("model.safetensors was not trained by this run's plan; run again in another output folder")
    model.load_state_dict(tensors)
    return plan, model.eval()


def bids_type_of(text: str) -> BidsType:
    """The word as a type. Raises UsageError for another word."""
    match text:
        case "derivative" | "raw":
            return text
        case _:
            raise UsageError(f"--bids-type {text}: write derivative or raw")


@dataclass(frozen=True)
class _Words:
    """What the sites sent as files."""

    plan: TrainingPlan
    seals: Mapping[str, Sealed]
    cast: Votes
    votes: bool = True

    def vote(self, volumes: Tensor, threshold: float) -> Votes:
        """As sent."""
        return self.cast

    def privacy(self) -> Sequence[SitePrivacy]:
        """From the signed ledgers."""
        terms = self.plan.privacy
        opened = {site: opened_ledger(self.plan.digest, site, terms.delta, seal)[1] for site, seal in self.seals.items()}
        return [site_privacy(site, events, terms.epsilon, terms.delta) for site, events in opened.items()]

    def ledgers(self) -> Mapping[str, Sealed]:
        """As sent."""
        return self.seals


def _pool(plan: TrainingPlan, policy: Policy) -> list[Candidate]:
    return candidates(plan.release, plan.variables, policy.rules.copies, is_voted_on(plan))


def _seals(plan: TrainingPlan, paths: Sequence[Path]) -> dict[str, Sealed]:
    found: dict[str, Sealed] = {}
    for path in paths:
        match parsed(_read(path), path.name):
            case {"site": str(site), "public_key": str(pem), "ledger": dict(envelope)}:
                found[plan.site(site).name] = Sealed(PublicKey.from_pem(pem.encode()), envelope)
            case _:
                raise IntegrityError(f"{path.name} is not a site's signed ledger; ask the site for it")
    return found


def _votes(plan: TrainingPlan, paths: Sequence[Path], made: Candidates) -> Votes:
    """The bits by site. Bits need no signature: what they cost is in the site's signed ledger."""
    bits: dict[str, str] = {}
    for path in paths:
        match parsed(_read(path), path.name):
            case {"kind": "vote", "site": str(site), "candidates": str(about), "bits": str(cast)} if about == made.digest:
                bits[plan.site(site).name] = cast
            case _:
                raise IntegrityError(f"{path.name} is not a site's vote on these candidates; ask the site for it")
    return Votes(bits, plan.privacy.vote_epsilon, made.threshold)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise IntegrityError(f"nothing can be read at {path}; name the file that the site sent") from error
