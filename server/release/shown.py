"""What a release shows of each person: which modalities, which images belong together, and the words for it."""

from __future__ import annotations

from collections.abc import Sequence

from braing3n_core.data.contrast import WHITE
from braing3n_core.plan import T1W
from server.release.cohort import Person


def modalities(people: Sequence[Person]) -> list[str]:
    """Those that any image has; T1w first."""
    return sorted({person.modality for person in people}, key=_t1w_first)


def by_visit(people: Sequence[Person]) -> list[dict[str, int]]:
    """For each visit of each person, modality -> place of its image among `people`; T1w first, visits in their order."""
    visits: dict[str, dict[str, int]] = {}
    for place, person in enumerate(people):
        visits.setdefault(person.visit, {})[person.modality] = place
    return [{name: found[name] for name in sorted(found, key=_t1w_first)} for found in visits.values()]


def sequences(people: Sequence[Person]) -> str:
    """The modalities for a reader: T1-weighted; T1-weighted and FLAIR."""
    return listed(["T1-weighted" if name == T1W else name for name in modalities(people)])


def white(shown: Sequence[str]) -> str:
    """How bright white matter is: 0.85; 0.85, on FLAIR 0.55."""
    return ", ".join(f"{'' if name == T1W else f'on {name} '}{WHITE[name]:g}" for name in shown)


def listed(words: Sequence[str]) -> str:
    """One; one and two; one, two and three."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _t1w_first(modality: str) -> tuple[bool, str]:
    return modality != T1W, modality
