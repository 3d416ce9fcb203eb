"""The rules a release must pass, as a file of its own."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from braing3n_core.errors import PlanRefused
from braing3n_core.plan import Fraction, Frozen

DEFAULT = Path(__file__).parent / "policy.toml"
Part = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


class Approvals(Frozen):
    """Whether every site must have put its name to the release."""

    required: bool


class Copies(Frozen):
    """The vote of the sites on candidates that are too much like a patient."""

    required: bool
    threshold: Annotated[float, Field(gt=0, lt=1)]
    spare: Annotated[float, Field(ge=0)]
    least_spare: NonNegativeInt

    def spares(self, count: int, voted: bool, images: int = 1) -> int:
        """People to make beyond `count`: more if a vote will reject some by noise alone, more still if each has `images`."""
        return max(self.least_spare, round(((1 + self.spare) ** images - 1) * count) if voted else 0)


class Anatomy(Frozen):
    """What a brain can be, one volume at a time."""

    brain_ml: Range
    ventricles_ml: Range
    grey_share: Range
    white_share: Range
    most_outside: Part
    most_fragments: Part
    most_rejected: Part


class Diversity(Frozen):
    """How alike two people of one release may be."""

    most_similar: Fraction
    most_mean_similarity: Fraction


class Condition(Frozen):
    """Whether the generator does what it is asked."""

    least_r: Annotated[float, Field(ge=-1, le=1)]
    least_images: PositiveInt


class Rules(Frozen):
    """Every table of a policy file; a key nobody declared is refused."""

    version: Literal[1]
    approvals: Approvals
    copies: Copies
    anatomy: Anatomy
    diversity: Diversity
    condition: Condition


@dataclass(frozen=True)
class Policy:
    """Rules, and the exact bytes they were read from."""

    rules: Rules
    raw: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the file, hex: what the gate result names."""
        return sha256(self.raw).hexdigest()

    @classmethod
    def load(cls, path: Path = DEFAULT) -> Policy:
        """Read a policy. Raises PlanRefused with the first fault in words."""
        try:
            return cls.read(path.read_bytes())
        except OSError as error:
            raise PlanRefused(f"no policy can be read at {path}; name a TOML file, or none for the one that ships") from error

    @classmethod
    def read(cls, raw: bytes) -> Policy:
        """A policy from its bytes. Raises PlanRefused."""
        try:
            return cls(Rules.model_validate_json(json.dumps(tomllib.loads(raw.decode()))), raw)
        except ValidationError as error:
            faults = error.errors()
            # A misspelt key is also a missing one; the spelling is what helps.
            fault = next((one for one in faults if one["type"] == "extra_forbidden"), faults[0])
            where = ".".join(str(part) for part in fault["loc"])
            raise PlanRefused(f"policy {where}: {fault['msg']}; correct the policy and run again") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError, ValueError) as error:
            raise PlanRefused(f"the policy is not readable as TOML ({error}); correct it and run again") from error
