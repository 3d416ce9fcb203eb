"""Two runs want one hospital at once, or one folder: neither gets what the other has paid for, and no budget is had twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import UsageError
from privacy.ledger import Ledger
from server import conduct
from server.lock import held
from tests.client.studies import request, site, study

ONE, OTHER = study(), study(seed=2)


@pytest.mark.slow
def test_rounds_of_two_plans_in_turn_are_each_answered_for_their_own_and_paid_from_one_budget(tmp_path: Path) -> None:
    here = {plan.digest: site(tmp_path, plan) for plan in (ONE, OTHER)}
    first = {plan.digest: here[plan.digest].round(request(plan)) for plan in (ONE, OTHER)}
    assert [first[plan.digest].header["plan"] for plan in (ONE, OTHER)] == [ONE.digest, OTHER.digest]
    values = [first[plan.digest].values for plan in (ONE, OTHER)]
    assert not np.array_equal(values[0], values[1])  # type: ignore[arg-type]  # updates have values
    for plan in (OTHER, ONE):                                # asked again in the other order: the same bytes, no charge
        again = here[plan.digest].round(request(plan))
        assert np.array_equal(again.values, first[plan.digest].values)  # type: ignore[arg-type]  # as above
    with Ledger(tmp_path / "north" / "ledger.jsonl", ONE.privacy.delta) as ledger:
        assert len(ledger.events) == 2
        assert ledger.epsilon <= ONE.privacy.epsilon
    crossed = here[ONE.digest].round(request(OTHER))
    assert crossed.header["code"] == "plan-refused"


def test_a_second_request_while_a_round_is_worked_on_is_told_to_come_again(tmp_path: Path) -> None:
    folder = tmp_path / "north"
    folder.mkdir()
    with Ledger(folder / "ledger.jsonl", ONE.privacy.delta) as ledger:
        header = site(tmp_path, OTHER).round(request(OTHER)).header
        assert (header["kind"], header["code"]) == ("refusal", "ledger-busy")
        assert not ledger.events


def test_two_runs_never_work_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "_ENDING_S", 0.1)
    with held(tmp_path), pytest.raises(UsageError):
        conduct.run(ONE, tmp_path, None, lambda line: None, lambda model, spent: None)  # type: ignore[arg-type]  # never asked
    assert not (tmp_path / "run.json").exists()
