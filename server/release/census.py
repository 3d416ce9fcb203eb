"""The census at the consortium: what sites sent, as shares that a release may follow."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from braing3n_core.census import Shares, pooled
from braing3n_core.errors import IntegrityError, WaitingForSites
from braing3n_core.files import write_atomically
from braing3n_core.plan import TrainingPlan
from braing3n_core.strict_json import parsed

FILE = "census.json"                                         # in a run's folder, and in the release's docs/


def refuse_without_census(plan: TrainingPlan, census: Shares | None) -> None:
    """Raise WaitingForSites if the release follows a census that is not there."""
    if plan.release.follow == "census" and census is None:
        raise WaitingForSites(
            "the release follows the census and no site told it yet; have each run braing3n-site census, then "
            "braing3n-admin release generate RUN --census FILE, once per site"
        )


def followed(plan: TrainingPlan, census: Shares | None) -> Shares | None:
    """The census, if the release follows it."""
    return census if plan.release.follow == "census" else None


def census_document(plan: TrainingPlan, census: Shares | None) -> dict[str, bytes]:
    """The shares as a document of the release; nothing where it follows none."""
    shares = followed(plan, census)
    return {} if shares is None else {f"docs/{FILE}": _written(plan, shares)}


def read_census(plan: TrainingPlan, run: Path, sent: Sequence[Path]) -> Shares | None:
    """The shares from the files that sites `sent`, kept in the run's folder; without files, those that were kept, if any.

    One run has one census, so that candidates and release are drawn from the same. Raises IntegrityError for a file that is no
    site's census of this plan, or if the run has another one; WaitingForSites below the plan's quorum.
    """
    kept = run / FILE
    if sent:
        told = _told(plan, sent)
        if not len(told) >= plan.federation.quorum:
            raise WaitingForSites(f"{len(told)} sites told the census, the quorum is {plan.federation.quorum}; ask the others")
        written = _written(plan, pooled(plan, told))
        if kept.exists() and kept.read_bytes() != written:
            raise IntegrityError(f"this run has another {FILE}; remove it and the candidates to draw them anew")
        write_atomically(kept, written)
    if not kept.exists():
        return None
    match parsed(kept.read_bytes(), FILE):
        case {"plan": str(about), "shares": dict(shares)} if about == plan.digest:
            return {str(name): tuple(float(share) for share in row) for name, row in shares.items()}
        case _:
            raise IntegrityError(f"{FILE} is of another plan; remove it and ask the sites again")


def _told(plan: TrainingPlan, sent: Sequence[Path]) -> Mapping[str, tuple[int, ...]]:
    """Counts by site. They need no signature: what they cost is in the site's signed ledger."""
    told: dict[str, tuple[int, ...]] = {}
    for path in sent:
        try:
            document = parsed(path.read_bytes(), path.name)
        except OSError as error:
            raise IntegrityError(f"nothing can be read at {path}; name the file that the site sent") from error
        match document:
            case {"kind": "census", "site": str(site), "plan": str(about), "counts": str(counts)} if about == plan.digest:
                told[plan.site(site).name] = _numbers(counts, path.name)
            case _:
                raise IntegrityError(f"{path.name} is not a site's census of this plan; ask the site for it")
    return told


def _numbers(text: str, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split())
    except ValueError as error:
        raise IntegrityError(f"{name} holds counts that are no whole numbers; ask the site for it again") from error


def _written(plan: TrainingPlan, shares: Shares) -> bytes:
    return (json.dumps({"plan": plan.digest, "shares": dict(shares)}, sort_keys=True, allow_nan=False) + "\n").encode()
