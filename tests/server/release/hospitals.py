"""Two sites with real ledgers, real keys and nothing else: what a release needs from hospitals, without a federation."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from torch import Tensor

from braing3n_core.manifest import SIGNATURE, SUMS, digests_of, sums
from braing3n_core.plan import TrainingPlan
from client.attest import NOBODY_LOOKED, approve, ledger_statement
from privacy.egress import VOTE_STAGE, purpose_of
from privacy.events import RandomisedResponse, SampledGaussian
from privacy.ledger import Ledger
from privacy.signing import Envelope, SigningKey
from server.release.accounts import Sealed
from server.release.edition import Edition
from server.release.gates import Votes
from server.release.inputs import SitePrivacy, site_privacy
from server.release.seal import bundle

EDITION = Edition("demo", date(2026, 11, 24), issuer="the demo consortium", contact="demo@example.org")


def folder_of(root: Path, site: str) -> Path:
    return root / "sites" / site


def pay(root: Path, plan: TrainingPlan, site: str, rounds: int = 1) -> None:
    """Charge `rounds` of every stage, as a run of this plan would."""
    with Ledger(folder_of(root, site) / "ledger.jsonl", plan.privacy.delta) as ledger:
        for stage in plan.stages:
            for number in range(1, rounds + 1):
                event = SampledGaussian(stage.name, 4.0, stage.sample_rate, stage.local_steps)
                ledger.reserve(event, purpose_of(plan.digest, stage.name, number), math.inf)


@dataclass
class Hospitals:
    """Stands where simulations.phantom_consortium does."""

    root: Path
    plan: TrainingPlan
    bits: Mapping[str, str] | None = None                    # None: nobody votes against anybody
    keys: dict[str, SigningKey] = field(default_factory=dict)
    asked: int = 0
    votes: bool = True

    def __post_init__(self) -> None:
        for site in self.plan.sites:
            self.keys[site.name] = SigningKey.generate()
            pay(self.root, self.plan, site.name)

    def vote(self, volumes: Tensor, threshold: float) -> Votes:
        self.asked += 1
        paid = self.plan.privacy.vote_epsilon
        for site in self.plan.sites:
            with Ledger(folder_of(self.root, site.name) / "ledger.jsonl", self.plan.privacy.delta) as ledger:
                event, purpose = RandomisedResponse(VOTE_STAGE, paid), purpose_of(self.plan.digest, VOTE_STAGE, 1)
                if ledger.standing(event, purpose) is None:
                    ledger.reserve(event, purpose, math.inf)
        bits = self.bits or {site.name: "0" * len(volumes) for site in self.plan.sites}
        return Votes(bits, paid, threshold)

    def privacy(self) -> Sequence[SitePrivacy]:
        rows = []
        for site in self.plan.sites:
            with Ledger(folder_of(self.root, site.name) / "ledger.jsonl", self.plan.privacy.delta) as ledger:
                rows.append(site_privacy(site.name, ledger.events, self.plan.privacy.epsilon, self.plan.privacy.delta))
        return rows

    def ledgers(self) -> Mapping[str, Sealed]:
        return {site: Sealed(key.public, self.statement(site)) for site, key in self.keys.items()}

    def statement(self, site: str) -> Envelope:
        return ledger_statement(folder_of(self.root, site), site, self.plan.digest, self.keys[site])

    def approvals(self, release: Path) -> list[Envelope]:
        return [approve(release, folder_of(self.root, site), site, key, NOBODY_LOOKED) for site, key in self.keys.items()]


def copied(release: Path, to: Path) -> Path:
    shutil.copytree(release, to / "release")
    return to / "release"


def resigned(release: Path, key: SigningKey) -> Path:
    """What somebody who holds the release key, and no site's, can do: sums and signature over whatever is there."""
    (release / SIGNATURE).unlink(missing_ok=True)
    (release / SUMS).write_bytes(sums(digests_of(release)))
    (release / SIGNATURE).write_bytes(bundle(release.name, digests_of(release), key))
    return release


def shown_in_both(plan: TrainingPlan, release: dict[str, object]) -> TrainingPlan:
    """The plan with another release, and stages that leave latents where they are, as a plan with FLAIR must."""
    stages = [one.model_copy(update={"trainable": "group:style"} if one.name == "decoder" else {}) for one in plan.stages]
    return plan.but(release=release, stages=stages)
