"""How well the model fits a patient, before and after a stage: what is measured, and on which public scale it is told.

Before a stage it is the patient's loss. After it, it is how far that loss has moved since: what a stage changes of a loss is
small beside the loss itself, so it can be clipped closer and told with less noise. No patient, count or site is in a scale, so
what the server makes of the noised sums is post-processing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage, StageName, TrainingPlan
from braing3n_core.training import Prepared, make_rows, row_loss
from privacy.bounded_sum import UNITS
from privacy.egress import ENDS, End

Reading = tuple[Stage, End]
_ROWS: Final = 4                                             # of one patient in memory at a time
_DRAWS: Final = 4                                            # so often
# The mean loss of people under the shipped prior, public phantoms alone (tests/golden/fit_middles.py).
_USUAL: Final[dict[StageName, float]] = {
    "encoder": 0.0022, "decoder": 0.13, "generator": 0.52, "spread": 13.0, "trajectory": 0.10, "contrast": 0.13,
}  # fmt: skip
# Of the usual loss: as far as one patient's is told to move. Four rounds without privacy moved hospitals' by 0.4 of it in the
# mean (generator, recipe demo), and by less than 0.02 in every other stage.
_CHANGE: Final = 0.5


@dataclass(frozen=True)
class Scale:
    """A patient's value is told as its distance from `middle`, clipped to `reach` either way. In units of the stage's loss."""

    middle: float
    reach: float

    def told(self, units: int, patients: int) -> float:
        """A noised sum as a mean over the DECLARED patients; whoever does not train counts as `middle`."""
        return self.middle + self.reach * units / (UNITS * patients)

    def deviation(self, noise_multiplier: float, patients: int, sites: int = 1) -> float:
        """Standard deviation of the noise in `told` of the sum over `sites` sites: public."""
        return self.reach * noise_multiplier * math.sqrt(sites) / patients


def readings(plan: TrainingPlan) -> list[Reading]:
    """The numbers that each site tells, in order; none if the plan tells no fit."""
    return [(stage, end) for stage in plan.stages for end in ENDS] if plan.privacy.tells_fit else []


def scale_of(stage: StageName, end: End) -> Scale:
    """Before a stage losses from none to twice the usual; after it, changes by half of that either way."""
    usual = _USUAL[stage]
    return Scale(usual, usual) if end == "before" else Scale(0.0, _CHANGE * usual)


@torch.no_grad()
def losses(model: Brain, stage: Stage, patients: Sequence[Prepared]) -> list[float]:
    """One loss a patient: the mean over rows drawn with masks, noise and times that are the same for everybody.

    The same draws before and after a stage leave luck out of the change. Every patient begins them anew, so who else is there
    moves nobody's loss. Rows that are drawn once are the same ones before and after. Whoever has nothing the stage learns from,
    a single visit or no other modality, is left out.
    """
    loss = row_loss(stage.name, stage.learns)
    found = []
    for patient in patients:
        if stage.name in ("trajectory", "contrast") and not patient.tensors[-1].any():
            continue
        draws, times = torch.Generator().manual_seed(0), 1 if stage.once else _DRAWS
        rows = (make_rows(patient, stage.model_copy(update={"views": _ROWS}), model, draws) for _ in range(times))
        found.append(float(torch.stack([loss(model, one).double().mean() for one in rows]).mean()))
    return found
