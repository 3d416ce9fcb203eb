"""Flower lets whoever starts a run override its configuration, and the bundle's digest does not tell. The hospital does."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import PlanRefused
from braing3n_core.settings import DEFAULTS
from client.approvals import approve
from client.gate import PINNED, Asked, admit
from tests.attacks.bundles import GOOD, digest
from tests.consortium import Study, begun

HONEST: dict[str, object] = {**PINNED, "plan": "/srv/plan.json", "out-dir": "/srv/out"}


@pytest.fixture
def one(tmp_path: Path) -> Study:
    made = begun(tmp_path)
    approve(made.site, made.sent(made.agreement(bundle=digest(GOOD))), made.keys["north"], digest(GOOD))
    return made


def asked(one: Study, config: dict[str, object], kind: str = "train.round", site: str | None = "north") -> Asked:
    return Asked(kind, one.plan.digest, site, GOOD, config)


def test_every_key_of_a_run_is_pinned_or_a_path_at_the_server() -> None:
    assert set(PINNED) | {"plan", "out-dir"} == set(DEFAULTS)


@pytest.mark.parametrize(
    "override",
    [{"epsilon": 1000.0}, {"epsilon": 1e-9}, {"rounds": 500}, {"patients": 1}, {"seed": 7}, {"data": ""},
     {"data": "north=/etc"}, {"noise": 0.0}, {"epsilon": False}, {"rounds": 0.0}, {"seed": "-1"}, {"dp.noise": 0}],
)  # fmt: skip
def test_no_override_reaches_a_hospital(one: Study, override: dict[str, object]) -> None:
    admit(one.site, asked(one, HONEST))
    with pytest.raises(PlanRefused, match=f"sets {next(iter(override))} in place of the plan"):
        admit(one.site, asked(one, HONEST | override))


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "query.ledger", "train.round2", ""])
def test_a_request_of_another_kind_is_refused(one: Study, kind: str) -> None:
    with pytest.raises(PlanRefused, match="of a kind this site does not know"):
        admit(one.site, asked(one, HONEST, kind))


@pytest.mark.parametrize("site", ["south", "", None, "North"])
def test_a_round_meant_for_another_site_is_refused(one: Study, site: str | None) -> None:
    with pytest.raises(PlanRefused, match="meant for another site"):
        admit(one.site, asked(one, HONEST, site=site))
