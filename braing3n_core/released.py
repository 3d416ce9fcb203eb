"""A generator that came with a release, as a recipient loads it: by path, offline, from a folder that `verify` has passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from braing3n_core.errors import IntegrityError
from braing3n_core.generate import batch_for
from braing3n_core.models.brain import Brain, Condition
from braing3n_core.people import Wanted, images
from braing3n_core.plan import T1W, TrainingPlan
from braing3n_core.prior import complete, load_prior
from braing3n_core.state import load

FOLDER = "generator"                                         # inside a release; a MONAI bundle
PLAN, WEIGHTS = "configs/plan.json", "models/generator.safetensors"


@dataclass(frozen=True)
class Released:
    """Trained networks and the plan whose sampler they are drawn with."""

    plan: TrainingPlan
    model: Brain

    @classmethod
    def load(cls, folder: str | Path) -> Released:
        """From the bundle's folder. Raises IntegrityError if the weights are not whole, or not of the plan beside them."""
        try:
            plan = TrainingPlan.from_json((Path(folder) / PLAN).read_text(encoding="utf-8"))
        except OSError as error:
            raise IntegrityError(f"no generator is in {Path(folder).name}; name the folder {FOLDER}/ of a release") from error
        tensors, about = load(Path(folder) / WEIGHTS)
        model = load_prior(plan)
        tensors = complete(model, tensors)
        if about.get("plan") != plan.digest or tensors.keys() != model.state_dict().keys():
            raise IntegrityError("the weights are of another plan than the one beside them; get the release again")
        model.load_state_dict(tensors)
        return cls(plan, model.eval())

    def sample(self, conditions: Sequence[Mapping[str, Condition]], seed: int, modality: str = T1W) -> Tensor:
        """(n, 1, D, H, W) volumes, one per row of conditions, in [0, 1.3]. Nobody has gated them: they are not the release.

        The same rows and seed in another modality are of the same brains. Raises UsageError for one that the plan lacks.
        """
        wanted = [Wanted(row, number, modality=modality) for number, row in enumerate(conditions)]
        release, batch = self.plan.release, batch_for(self.plan.model)
        return images(self.model, wanted, seed, steps=release.steps, guidance=release.weights, batch=batch)
