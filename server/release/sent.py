"""What sites sent as files around a release: their votes and their signed ledgers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from braing3n_core.candidate_files import Candidates
from braing3n_core.errors import IntegrityError
from braing3n_core.plan import TrainingPlan
from braing3n_core.strict_json import parsed
from privacy.signing import PublicKey
from server.release.accounts import Sealed, opened_ledger
from server.release.gates import Votes
from server.release.inputs import SitePrivacy, site_privacy


@dataclass(frozen=True)
class Sent:
    """Stands where a consortium does that can be asked at once."""

    plan: TrainingPlan
    seals: Mapping[str, Sealed]
    cast: Votes
    votes: bool = True

    @classmethod
    def read(cls, plan: TrainingPlan, made: Candidates, votes: Sequence[Path], ledgers: Sequence[Path]) -> Sent:
        """From the sites' files. Raises IntegrityError for a file that is no such word, or about other candidates."""
        return cls(plan, _seals(plan, ledgers), _votes(plan, votes, made))

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
