"""A site's vote on the candidates of a release: is one of them too much like one of our patients?

Held-out patients vote as well: the generator never saw them, but what is released must not look like them either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from braing3n_core.candidate_files import ballot_digest
from braing3n_core.data.cohort import Patient
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.files import write_atomically
from braing3n_core.likeness import ALLOWANCE, likeness
from braing3n_core.models.presets import Preset
from braing3n_core.plan import T1W
from privacy.egress import VOTE_STAGE, Cleared, Egress, Vote, purpose_of
from privacy.events import RandomisedResponse
from privacy.ledger import Ledger, Reservation
from privacy.randomised_response import randomise, tally
from privacy.randomness import SecretNoise

if TYPE_CHECKING:
    from client.site import Site

_AT_ONCE = 50                                                # scans held against all candidates together


@dataclass(frozen=True, eq=False)
class Ballot:
    """What a site is asked to vote on."""

    plan: str                                                # the plan's digest
    round: int
    candidates: Tensor                                       # (c, 1, D, H, W) on the plan's grid
    threshold: float                                         # of braing3n_core.likeness; from public pairs alone

    @property
    def digest(self) -> str:
        """What the vote names."""
        return ballot_digest(self.candidates, self.threshold)


def cast(site: Site, ledger: Ledger, egress: Egress, ballot: Ballot) -> Cleared:
    """Vote once on this ballot, or send the same bits again.

    Guarantee: the bits cost what the plan says for one round, charged before a scan is looked at; one round answers one
    ballot, and there are at most two rounds for a plan, whatever the server asks.
    """
    # 1. Is it a round of this plan's vote, on volumes of its grid?
    epsilon, rounds = site.plan.privacy.vote_epsilon, site.plan.privacy.vote_rounds
    if not (ballot.plan == site.plan.digest and 1 <= ballot.round <= rounds and epsilon > 0):
        raise PlanRefused("the plan this site runs has no such vote; agree on vote_epsilon and vote_rounds first")
    if not (tuple(ballot.candidates.shape[1:]) == (1, *site.plan.model.shape) and len(ballot.candidates) > 0):
        raise PlanRefused("the candidates are not volumes of the plan's grid; the sender has another plan")
    # 2. Pay, or find what was paid before.
    event, purpose = RandomisedResponse(VOTE_STAGE, epsilon), purpose_of(ballot.plan, VOTE_STAGE, ballot.round)
    reservation, made = ledger.paid_once(event, purpose, site.limit)
    # 3. One vote per patient, then noise; kept before it is sent, so that a lost reply is repeated and not drawn anew.
    kept = site.folder / "answers" / f"{reservation.digest}.vote"
    if not kept.exists():
        if made:
            raise IntegrityError("what this site voted is gone; restore the site's folder")
        kept.parent.mkdir(mode=0o700, exist_ok=True)
        votes = votes_of(site.cohort.patients, ballot, site.plan.model)
        bits = randomise(tally(votes, len(ballot.candidates)), event, SecretNoise())
        write_atomically(kept, f"{ballot.digest} {''.join(str(int(bit)) for bit in bits)}".encode())
    voted_on, bits_kept = kept.read_text(encoding="ascii").split()
    if voted_on != ballot.digest:
        raise PlanRefused("this round of the vote was answered for other candidates; one round answers one ballot")
    return egress.send(_message(site, ballot, reservation, bits_kept), len(ballot.candidates))


def votes_of(patients: Sequence[Patient], ballot: Ballot, preset: Preset) -> Iterator[int | None]:
    """For each patient the one candidate most like any of the patient's scans, if it is too much like it; else None.

    Every candidate is held against scans of every modality, each with its public allowance: nobody is asked what a candidate
    is, so no label can hide a copy.
    """
    best = np.full((len(patients), len(ballot.candidates)), -1, np.float32)
    for held, alike in held_against(patients, ballot.candidates, preset):
        np.maximum.at(best, [owner for owner, _ in held], alike)
    for row in best:
        nearest = int(row.argmax())
        yield nearest if row[nearest] > ballot.threshold else None


def held_against(
    patients: Sequence[Patient], candidates: Tensor, preset: Preset
) -> Iterator[tuple[list[tuple[int, Tensor]], np.ndarray]]:
    """A few scans (1, D, H, W) at a time, each with the place of its patient, and (scans, c) how alike the candidates are.

    On T1w's scale, which the threshold is of: other modalities have their allowance.
    """
    for modality, owned in _scans_by_modality(patients).items():
        for first in range(0, len(owned), _AT_ONCE):
            held = owned[first : first + _AT_ONCE]
            alike = likeness(torch.stack([scan for _, scan in held]), candidates, preset, modality)
            yield held, alike + np.float32(ALLOWANCE.get(modality, 0.0))


def _scans_by_modality(patients: Sequence[Patient]) -> dict[str, list[tuple[int, Tensor]]]:
    """Modality -> scans (1, D, H, W), each with the place of the patient it is of. What a plan reads as one counts as T1w."""
    found = {T1W: [(place, scan.volume) for place, one in enumerate(patients) for scan in one.scans]}
    for place, one in enumerate(patients):
        for scan in one.others:
            found.setdefault(scan.modality, []).append((place, scan.volume))
    return found


def _message(site: Site, ballot: Ballot, reservation: Reservation, bits: str) -> Vote:
    return Vote(site.name, site.plan.digest, ballot.digest, ballot.round, reservation, bits)
