from __future__ import annotations

import inspect
import math
import socket
from pathlib import Path

import pytest

from braing3n_core.errors import PlanRefused
from braing3n_core.plan import DEFAULT_VARIABLES, Cell, Release
from server.release import cohort
from server.release.cohort import draw


def asked(*cells: Cell, seed: int = 5) -> Release:
    return Release(seed=seed, cells=cells)


OLD_WOMEN = Cell(count=40, conditions={"age": (70.0, 90.0), "sex": ("F",), "ventricles": (20.0, 60.0)})
ANYBODY = Cell(count=60, conditions={"age": (20.0, 90.0), "sex": ("F", "M"), "diagnosis": ("healthy", "dementia")})


def test_the_same_plan_never_gives_another_cohort() -> None:
    first, second = draw(asked(OLD_WOMEN, ANYBODY), DEFAULT_VARIABLES), draw(asked(OLD_WOMEN, ANYBODY), DEFAULT_VARIABLES)
    assert first == second
    assert first != draw(asked(OLD_WOMEN, ANYBODY, seed=6), DEFAULT_VARIABLES)
    assert [first[0].name, first[-1].name] == ["sub-syn0001", "sub-syn0100"]


def test_nobody_is_drawn_outside_the_cell() -> None:
    people = draw(asked(OLD_WOMEN, ANYBODY), DEFAULT_VARIABLES)
    women, anybody = people[:40], people[40:]
    assert all(70 <= p.conditions["age"] <= 90 and p.conditions["sex"] == "F" for p in women)
    assert all(p.conditions["diagnosis"] is None and p.conditions["lesions"] is None for p in women)
    assert {p.conditions["sex"] for p in anybody} == {"F", "M"}
    ages = sorted(p.conditions["age"] for p in anybody)
    assert ages[0] < 30 < 80 < ages[-1], "uniform over the range, not bunched"
    assert all(set(p.conditions) == {v.name for v in DEFAULT_VARIABLES} for p in people)


def test_one_condition_more_leaves_the_others_alone() -> None:
    fewer = Cell(count=9, conditions={"age": (20.0, 90.0)})
    more = Cell(count=9, conditions={"age": (20.0, 90.0), "lesions": (0.0, 5.0)})
    ages = [[p.conditions["age"] for p in draw(asked(cell), DEFAULT_VARIABLES)] for cell in (fewer, more)]
    assert ages[0] == ages[1]


def test_a_variable_with_one_level_has_it() -> None:
    assert {p.conditions["modality"] for p in draw(asked(OLD_WOMEN), DEFAULT_VARIABLES)} == {"T1w"}


def test_a_range_of_one_value_is_that_value() -> None:
    exact = Cell(count=3, conditions={"age": (70.123, 70.123)})
    assert {p.conditions["age"] for p in draw(asked(exact), DEFAULT_VARIABLES)} == {70.123}


@pytest.mark.parametrize(
    ("conditions", "word"),
    [
        ({"age": (10.0, 30.0)}, "outside"),
        ({"age": (80.0, 120.0)}, "outside"),
        ({"age": (60.0, 50.0)}, "not a range"),
        ({"age": ("old",)}, "not a range"),
        ({"sex": ("X",)}, "choose from"),
        ({"diagnosis": ("dementa",)}, "did you mean 'dementia'"),
        ({"diagnosis": ()}, "no level"),
        ({"sex": (0.0, 1.0)}, "not a level"),
    ],
)
def test_the_impossible_is_refused(conditions: dict[str, tuple[object, ...]], word: str) -> None:
    with pytest.raises(PlanRefused, match=word):
        draw(asked(Cell.model_construct(count=1, conditions=conditions)), DEFAULT_VARIABLES)


def test_a_nan_or_unknown_condition_is_refused() -> None:
    for conditions in ({"age": (math.nan, 40.0)}, {"age": (20.0, math.nan)}, {"height": (1.0, 2.0)}):
        with pytest.raises(PlanRefused):
            draw(asked(Cell.model_construct(count=1, conditions=conditions)), DEFAULT_VARIABLES)


def test_no_table_is_ever_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def crime(*_: object, **__: object) -> None:
        raise AssertionError("a cohort was drawn with a look at a file or the network")

    for target, name in ((Path, "open"), (Path, "read_text"), (Path, "read_bytes"), (socket, "socket")):
        monkeypatch.setattr(target, name, crime)
    monkeypatch.setattr("builtins.open", crime)
    assert len(draw(asked(ANYBODY), DEFAULT_VARIABLES)) == 60
    assert list(inspect.signature(draw).parameters) == ["release", "variables", "census"], "noisy counts, and no table"
    assert "pathlib" not in inspect.getsource(cohort)
    assert "open(" not in inspect.getsource(cohort)
