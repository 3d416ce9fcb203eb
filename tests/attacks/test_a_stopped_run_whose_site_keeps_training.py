"""A run is stopped, or its server dies, while a hospital trains: nobody hears the answer, and it is paid for all the same."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.data.cohort import Cohort
from client.site import Site
from client.statement import in_words, read_statement
from privacy.ledger import Ledger
from tests.client.studies import PEOPLE, Scans, charges, request, site, study

pytestmark = pytest.mark.slow                                # each trains a round
PLAN = study()


class Slow(Scans):
    """Patients that are handed out for training when somebody says so."""

    def __init__(self) -> None:
        super().__init__()
        self.training, self.go_on = threading.Event(), threading.Event()
        outer = self

        class Held(Cohort):
            @property
            def training(self) -> tuple[object, ...]:        # type: ignore[override]  # asked for once the round is paid
                outer.training.set()
                outer.go_on.wait(60)
                return PEOPLE[:3]

        self.cohort = Held(PEOPLE, ())


def trains_alone(folder: Path) -> None:
    """A round whose reply nobody takes: the run is over before the hospital is done."""
    scans = Slow()
    here: Site = site(folder, scans=scans)
    round_ = threading.Thread(target=here.round, args=(request(PLAN),))
    round_.start()
    assert scans.training.wait(60), "it is in the middle of its round when the run is stopped"
    scans.go_on.set()
    round_.join(60)


def test_its_spend_is_in_the_ledger_and_its_own_statement_says_so(tmp_path: Path) -> None:
    trains_alone(tmp_path)
    assert charges(tmp_path) == 1
    said = "\n".join(in_words(read_statement(tmp_path / "north", verify=True)))
    assert "1 rounds paid for, 1 answered" in said


def test_a_run_that_is_taken_up_gets_the_answer_that_was_paid_for(tmp_path: Path) -> None:
    trains_alone(tmp_path)
    first, again = (site(tmp_path).round(request(PLAN)).values for _ in range(2))
    assert first is not None
    assert np.array_equal(first, again)  # type: ignore[arg-type]  # updates have values
    assert charges(tmp_path) == 1


def test_another_run_on_the_same_patients_finds_that_much_less(tmp_path: Path) -> None:
    trains_alone(tmp_path)
    other = study(seed=2)                                    # another plan, the same budget of the same patients
    answers = [site(tmp_path, other).round(request(other, number=number)).header for number in (1, 2)]
    with Ledger(tmp_path / "north" / "ledger.jsonl", PLAN.privacy.delta) as ledger:
        assert len(ledger.events) == 1 + sum(header["kind"] == "update" for header in answers)
        assert ledger.epsilon <= PLAN.privacy.epsilon
