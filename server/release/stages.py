"""From a finished run to a release in steps that may be days apart: candidates out, the sites' words in, gates, the folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from braing3n_core.candidate_files import PART, Candidates, part_path, read_candidates, write_part
from braing3n_core.errors import IntegrityError, PlanRefused, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.manifest import SIGNATURE
from braing3n_core.models.brain import Brain
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import complete, load_prior
from braing3n_core.state import load
from server import fit
from server.finish import provenance, read_rounds
from server.release import gates
from server.release.candidates import Candidate, candidates, volumes_of
from server.release.census import followed, read_census, refuse_without_census
from server.release.dataset import refuse_to_overwrite
from server.release.edition import Edition
from server.release.gates import Gate
from server.release.judge import is_voted_on, judge
from server.release.policy import Policy
from server.release.publish import RELEASE, Extras, publish
from server.release.sent import Sent
from server.release.tables import BidsType, as_json

FOLDER = "candidates"
VERDICT = "gates.json"
Say = Callable[[str], None]
Prior = Callable[[TrainingPlan], Brain]


def generate_candidates(
    run: Path, policy: Policy, say: Say, prior: Prior = load_prior, *, census: Sequence[Path] = ()
) -> Path:
    """Make the candidates of a finished run, part by part; parts that are there already are kept. Returns their folder.

    A candidate depends on the plan's seed and its own index alone, so a stopped call goes on where it was, to the same bytes.
    Memory holds one part, and of that a batch at a time. The folder is its owner's alone: no gate has looked at what is in it.
    `census`: what each site sent of it, where the release follows it; kept in the run's folder from then on.
    """
    plan, model = finished_run(run, prior)
    refuse_without_census(plan, read_census(plan, run, census))
    pool, folder = _pool(run, plan, policy), run / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    for first in range(0, len(pool), PART):
        if not part_path(folder, first).exists():
            made = volumes_of(plan, model, pool[first : first + PART])
            write_part(folder, plan.digest, policy.rules.copies.threshold, first, len(pool), made)
            say(f"candidates: {min(first + PART, len(pool))} of {len(pool)}")
    return folder


@dataclass(frozen=True)
class Passed:
    """What the gates said about candidates that may be released."""

    candidates: int
    people: int
    gates: Sequence[Gate]

    def in_words(self) -> str:
        """For a person."""
        lines = [f"{gate.name:<10}{'open' if gate.applies else 'nothing to judge'}: {gate.found}" for gate in self.gates]
        return "\n".join([*lines, f"{self.people} of {self.candidates} candidates may be released"])


def gate(run: Path, policy: Policy, votes: Sequence[Path], ledgers: Sequence[Path], prior: Prior = load_prior) -> Passed:
    """Hold the candidates to the gates and write <run>/gates.json, whatever they say.

    Raises GateBlocked if one stays closed, naming each with what was found, what is allowed and what to do. A folder that was
    built before, and not signed yet, is removed then: nothing that could be published is left behind.
    """
    plan, _ = finished_run(run, prior)
    made = _made(run, plan, policy)
    judged = judge(plan, policy, Sent.read(plan, made, votes, ledgers), _pool(run, plan, policy), made.volumes)
    verdict = {
        "verdict": gates.verdict(judged.gates), "plan": plan.digest, "policy": policy.digest, "candidates": made.digest,
        "people": len(judged.people), "gates": [one.as_json() for one in judged.gates],
    }  # fmt: skip
    write_atomically(run / VERDICT, as_json(verdict))
    if verdict["verdict"] == "FAILED":
        _remove_unsigned(run / RELEASE)
    gates.refuse_closed(judged.gates)
    return Passed(len(made.volumes), len(judged.people), judged.gates)


def build(
    run: Path,
    policy: Policy,
    edition: Edition | None,
    votes: Sequence[Path],
    ledgers: Sequence[Path],
    *,
    kind: BidsType = "derivative",
    with_generator: bool = False,
    prior: Prior = load_prior,
) -> Path:
    """Gate the candidates again, with what the sites sent, and write <run>/release. Refused as `publish` refuses."""
    plan, model = finished_run(run, prior)
    made = _made(run, plan, policy)
    words = Sent.read(plan, made, votes, ledgers)
    extras = Extras(rounds=read_rounds(run), fits=fit.read(run), provenance=provenance())
    edition = edition or Edition.today(plan.study)
    return publish(
        plan, model, run, words, edition, policy=policy, extras=extras, kind=kind, replace=True, made=made.volumes,
        with_generator=with_generator,
        census=read_census(plan, run, ()),
    )  # fmt: skip


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
    model.load_state_dict(complete(model, tensors))
    return plan, model.eval()


def bids_type_of(text: str) -> BidsType:
    """The word as a type. Raises UsageError for another word."""
    match text:
        case "derivative" | "raw":
            return text
        case _:
            raise UsageError(f"--bids-type {text}: write derivative or raw")


def _made(run: Path, plan: TrainingPlan, policy: Policy) -> Candidates:
    made = read_candidates(run / FOLDER)
    if not (made.plan == plan.digest and made.threshold == policy.rules.copies.threshold):
        raise PlanRefused("the candidates were made for another plan or policy; remove their folder and generate them again")
    return made


def _remove_unsigned(release: Path) -> None:
    """What was signed is out of our hands and needs `revoke`; what was not is a mistake waiting to be handed on."""
    if release.exists() and not (release / SIGNATURE).exists():
        refuse_to_overwrite(release, replace=True)
        shutil.rmtree(release)


def _pool(run: Path, plan: TrainingPlan, policy: Policy) -> list[Candidate]:
    shares = followed(plan, read_census(plan, run, ()))
    return candidates(plan.release, plan.variables, policy.rules.copies, is_voted_on(plan), shares)
