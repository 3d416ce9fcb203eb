"""Flower lets whoever starts a run override its configuration, and the bundle's digest does not tell. The hospital does."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import PlanRefused
from braing3n_core.settings import DEFAULTS
from client.gate import PINNED, admit
from tests.attacks.bundles import HONEST, approved_with, ask


def test_every_key_of_a_run_is_pinned_or_a_path_at_the_server() -> None:
    assert set(PINNED) | {"plan", "out-dir"} == set(DEFAULTS)


@pytest.mark.parametrize(
    "override",
    [{"epsilon": 1000.0}, {"epsilon": 1e-9}, {"rounds": 500}, {"patients": 1}, {"seed": 7}, {"data": ""},
     {"data": "north=/etc"}, {"noise": 0.0}, {"epsilon": False}, {"rounds": 0.0}, {"seed": "-1"}, {"dp.noise": 0}],
)  # fmt: skip
def test_no_override_reaches_a_hospital(tmp_path: Path, override: dict[str, object]) -> None:
    one = approved_with(tmp_path)
    admit(one.site, ask(one))
    with pytest.raises(PlanRefused, match=f"sets {next(iter(override))} in place of the plan"):
        admit(one.site, ask(one, config=HONEST | override))
