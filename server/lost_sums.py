"""Secure sums that sites paid for and nobody could open: <checkpoints>/lost-sums.jsonl, and the spare rounds in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from braing3n_core.errors import IntegrityError
from braing3n_core.files import write_atomically
from braing3n_core.frozen import Frozen
from braing3n_core.plan import TrainingPlan

_FILE: Final = "lost-sums.jsonl"


class LostSum(Frozen):
    """One attempt at a round that ended after numbers had come."""

    stage: str
    round: int
    attempt: int
    paid: tuple[str, ...]                                    # sites whose numbers had come


def lost_sums(checkpoints: Path) -> tuple[LostSum, ...]:
    """In the order in which they were lost. Raises IntegrityError if the file was damaged."""
    path = checkpoints / _FILE
    lines = path.read_bytes().splitlines() if path.exists() else []
    try:
        return tuple(TypeAdapter(LostSum).validate_json(line) for line in lines)
    except ValidationError as error:
        raise IntegrityError(f"{_FILE} is not what this run wrote; restore the run's folder") from error


def add(checkpoints: Path, lost: LostSum) -> None:
    """Write `lost` down, once: a run that is taken up loses its last sum again."""
    known = lost_sums(checkpoints)
    if lost not in known:
        text = "".join(one.model_dump_json() + "\n" for one in [*known, lost])
        write_atomically(checkpoints / _FILE, text.encode())


def spare_spent(plan: TrainingPlan, lost: Sequence[LostSum]) -> dict[str, int]:
    """Stage -> how many of its spare rounds stand in for lost sums. A sum that is lost beyond them has none in its place."""
    counts = {stage.name: sum(one.stage == stage.name for one in lost) for stage in plan.stages}
    return {stage: min(count, plan.privacy.spare) for stage, count in counts.items() if count}


def in_words(plan: TrainingPlan, lost: Sequence[LostSum]) -> Iterator[str]:
    """What was lost and what stands in for it, a line for each stage that lost any."""
    for stage, spent in spare_spent(plan, lost).items():
        rounds = [one.round for one in lost if one.stage == stage]
        where = f"round{'s' * (len(set(rounds)) > 1)} {', '.join(map(str, sorted(set(rounds))))}"
        what = f"{len(rounds)} secure sum{'s were' if len(rounds) > 1 else ' was'} paid and lost in {stage}, {where}"
        yield f"{what}; {spent} of {plan.privacy.spare} spare rounds spent in their place"
