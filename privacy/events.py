"""What happened to patients' privacy, as data. The vocabulary is append-only: no event is removed or changes its meaning.

An event the accountant cannot bound costs infinity (privacy/accountant.py), so a new kind of message is expensive until
somebody has proved what it costs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from privacy.errors import LedgerCorrupt, MechanismRefused


@dataclass(frozen=True)
class SampledGaussian:
    """`steps` releases of a clipped sum over a Poisson sample of patients, each with Gaussian noise.

    Unit: one patient with all scans and visits. Neighbours: add or remove one patient. `noise_multiplier` is the
    noise's standard deviation over the clipping bound; `sample_rate` is each patient's chance of joining one step.
    """

    stage: str
    noise_multiplier: float
    sample_rate: float
    steps: int
    replayable: bool = False

    def __post_init__(self) -> None:
        if not (self.noise_multiplier > 0 and math.isfinite(self.noise_multiplier)):
            raise MechanismRefused(f"noise multiplier {self.noise_multiplier} must be a finite positive number")
        if not 0 < self.sample_rate <= 1:
            raise MechanismRefused(f"sample rate {self.sample_rate} must be in (0, 1]")
        if not self.steps >= 1:
            raise MechanismRefused(f"steps {self.steps} must be at least 1")


@dataclass(frozen=True)
class RandomisedResponse:
    """One vector of bits of which one patient changes at most one, each bit flipped with probability 1 / (1 + e^epsilon).

    Unit and neighbours as above. Pure: delta 0 (privacy/randomised_response.py).
    """

    stage: str
    epsilon: float
    replayable: bool = False

    def __post_init__(self) -> None:
        if not (self.epsilon > 0 and math.isfinite(self.epsilon)):
            raise MechanismRefused(f"a vote's epsilon must be a finite positive number, got {self.epsilon}")


@dataclass(frozen=True)
class SecureSummed:
    """`steps` secure sums, over several sites, of whole numbers of a Poisson sample of patients, with Skellam noise.

    Unit and neighbours as above; the patient may be at any site, and only the noisy sum over sites is seen. `noise_variance`
    is what `shares` honest sites' equal shares add up to, `l2_bound` the L2 norm of one patient's (size,) whole numbers, after
    rounding. Rests on what privacy/secure_sum.py assumes about how many sites drop out or collude; `alone` rests on nothing.
    """

    stage: str
    noise_variance: float
    l2_bound: float
    size: int
    sample_rate: float
    steps: int
    shares: int

    def __post_init__(self) -> None:
        for name, value in (("noise variance", self.noise_variance), ("l2 bound", self.l2_bound)):
            if not (value > 0 and math.isfinite(value)):
                raise MechanismRefused(f"{name} {value} must be a finite positive number")
        if not 0 < self.sample_rate <= 1:
            raise MechanismRefused(f"sample rate {self.sample_rate} must be in (0, 1]")
        if not min(self.steps, self.size, self.shares) >= 1:
            raise MechanismRefused(f"steps {self.steps}, size {self.size} and shares {self.shares} must be at least 1")

    @property
    def alone(self) -> SecureSummed:
        """The same against the server and all other sites together, who know all noise but that of the patient's own site."""
        return replace(self, noise_variance=self.noise_variance / self.shares, shares=1)


@dataclass(frozen=True)
class NonPrivate:
    """Something computed on patients left without any mechanism. Costs infinity."""

    stage: str


@dataclass(frozen=True)
class Unbounded:
    """An event of a vocabulary this version does not know, kept so that the ledger stays whole. Costs infinity."""

    description: str


Event = SampledGaussian | RandomisedResponse | SecureSummed | NonPrivate | Unbounded


def to_record(event: Event) -> dict[str, object]:
    """The event as a JSON object. Law: from_record(to_record(e)) == e."""
    return {"kind": type(event).__name__, **asdict(event)}


def from_record(record: Mapping[str, object]) -> Event:
    """The event behind a JSON object; one of an unknown kind becomes `Unbounded`."""
    fields = {key: value for key, value in record.items() if key != "kind"}
    try:
        match record.get("kind"):
            case "SampledGaussian":
                return SampledGaussian(**fields)  # type: ignore[arg-type]  # a wrong type is caught below
            case "RandomisedResponse":
                return RandomisedResponse(**fields)  # type: ignore[arg-type]  # a wrong type is caught below
            case "SecureSummed":
                return SecureSummed(**fields)  # type: ignore[arg-type]  # a wrong type is caught below
            case "NonPrivate":
                return NonPrivate(**fields)  # type: ignore[arg-type]  # a wrong type is caught below
            case "Unbounded":
                return Unbounded(**fields)  # type: ignore[arg-type]  # a wrong type is caught below
            case _:
                return Unbounded(json.dumps(dict(record), sort_keys=True))
    except (TypeError, MechanismRefused) as error:
        raise LedgerCorrupt(f"a {record.get('kind')} event has fields this version cannot read; restore the ledger") from error
