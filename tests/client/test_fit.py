"""What a site tells of a stage's fit: paid before a loss is computed, told once, one noisy whole number and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import client.fit
import client.site
from braing3n_core.fit import Scale
from braing3n_core.plan import TrainingPlan
from braing3n_core.protocol import Request
from client.fit import exact
from client.policy import Policy
from client.site import Site
from privacy.bounded_sum import UNITS, whole_units
from privacy.egress import FIT_STAGE, End, fit_purpose
from privacy.errors import MechanismRefused
from privacy.ledger import Ledger
from tests.client.studies import PEOPLE, Scans, patient, request, site, study

PRIVACY = {"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "fit_share": 0.05}
PLAN = study(privacy=PRIVACY)
DECODER, GENERATOR = PLAN.stages


def asked(end: End = "before", stage: str = "decoder", *, shift: float = 0.0, plan: TrainingPlan = PLAN) -> Request:
    return replace(request(plan, stage, shift=shift), end=end)


def events(folder: Path) -> tuple[object, ...]:
    with Ledger(folder / "north" / "ledger.jsonl", 1e-5) as ledger:
        return ledger.events


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Scale:
    """The scales of these tests' small random model, whose losses lie far beyond those of a prior."""
    scale = Scale(20.0, 40.0)
    monkeypatch.setattr(client.fit, "scale_of", lambda stage, end: scale if end == "before" else Scale(0.0, 10.0))
    return scale


def test_a_fit_is_paid_for_and_is_nothing_but_one_noisy_whole_number(tmp_path: Path) -> None:
    here = site(tmp_path, PLAN)
    cleared = here.round(asked())
    assert cleared.values is None
    assert set(cleared.header) == {"kind", "site", "plan", "stage", "end", "start", "units", "epsilon", "ledger_head"}
    assert (cleared.header["kind"], cleared.header["end"], cleared.header["start"]) == ("fit", "before", asked().digest)
    assert type(cleared.header["units"]) is int
    assert events(tmp_path) == (here.charge(FIT_STAGE),)
    logged = json.loads((tmp_path / "north" / "audit.jsonl").read_text().splitlines()[-1])
    assert logged["charged"]["stage"] == "fit"
    assert logged["header"]["units"] == cleared.header["units"]


def test_it_is_paid_for_before_a_loss_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(here: Site, *_: object) -> None:
        records = (here.folder / "ledger.jsonl").read_text().splitlines()
        assert '"reserved"' in records[-1]
        raise RuntimeError("computed after that")

    monkeypatch.setattr(client.fit, "exact", seen)
    assert site(tmp_path, PLAN).round(asked()).header["code"] == "internal"
    assert "computed after that" in (tmp_path / "north" / "site.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["before", "after"])
def test_one_patient_moves_the_exact_sum_by_that_patient_s_own_units(tmp_path: Path, wide: Scale, end: End) -> None:
    """At zero noise, through the code that runs: whoever is left out takes just that along, and never beyond the bound."""
    people, values = PEOPLE[:3], request(PLAN, shift=0.3).values
    whole = exact(site(tmp_path, PLAN, Scans(people)), DECODER, end, values).units
    without = [
        exact(site(tmp_path, PLAN, Scans(people[:gone] + people[gone + 1 :])), DECODER, end, values).units for gone in range(3)
    ]
    alone = [exact(site(tmp_path, PLAN, Scans([one])), DECODER, end, values).units for one in people]
    assert [whole - rest for rest in without] == alone
    assert len(set(alone)) == 3
    assert all(0 < abs(units) <= UNITS for units in alone)


def test_held_out_patients_are_in_no_number(tmp_path: Path, wide: Scale) -> None:
    values = request(PLAN).values
    held_out = [patient(number, held_out=True) for number in (7, 8)]
    one, other = (exact(site(tmp_path, PLAN, Scans(who)), DECODER, "before", values) for who in (PEOPLE, [*PEOPLE, *held_out]))
    assert one == other


def test_a_change_is_measured_from_where_the_stage_began(tmp_path: Path, wide: Scale) -> None:
    here = site(tmp_path, PLAN, Scans(PEOPLE[:1]))
    assert exact(here, GENERATOR, "after", request(PLAN, "generator").values).units == 0, "nothing was trained"
    values = request(PLAN, "generator").values.copy()
    untouched = exact(here, GENERATOR, "before", values).units
    values[-1] += 0.4                                        # of this stage alone: what earlier ones did is no change of it
    later = exact(here, GENERATOR, "before", values).units
    loss = [wide.middle + wide.reach * units / UNITS for units in (untouched, later)]
    change = exact(here, GENERATOR, "after", values).units
    assert abs(change - whole_units(loss[1] - loss[0], 0.0, 10.0)) <= 4, "but for the rounding of the wider scale"


@pytest.mark.parametrize("again", [0.0, 0.5], ids=["the same values", "other values"])
def test_whatever_is_asked_after_the_first_number_it_is_the_same_one(tmp_path: Path, again: float) -> None:
    first = site(tmp_path, PLAN).round(asked()).header
    second = site(tmp_path, PLAN).round(asked(shift=again)).header
    assert {**first} == {**second}
    assert len(events(tmp_path)) == 1


def test_a_reservation_that_a_crash_left_is_taken_up(tmp_path: Path) -> None:
    here = site(tmp_path, PLAN)
    here.folder.mkdir()
    with Ledger(here.folder / "ledger.jsonl", 1e-5) as ledger:
        ledger.reserve(here.charge(FIT_STAGE), fit_purpose(PLAN.digest, "decoder", "before"), 8.0)
    assert here.round(asked()).header["kind"] == "fit"
    assert len(events(tmp_path)) == 1


@pytest.mark.parametrize("step", ["exact", "write_atomically", "_message"])
def test_a_crash_at_any_step_costs_one_charge_and_never_a_second_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the number is drawn, drawn and not kept, kept and not sent."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(client.fit, step, killed)
        with pytest.raises(KeyboardInterrupt):
            site(tmp_path, PLAN).round(asked())
    drawn = [path.read_text().split()[1] for path in (tmp_path / "north" / "answers").glob("*.fit")]
    assert len(drawn) == (step == "_message")
    told = {str(site(tmp_path, PLAN).round(asked()).header["units"]) for _ in range(2)}
    assert len(told | set(drawn)) == 1
    assert len(events(tmp_path)) == 1


def test_what_failed_once_stays_paid_and_is_not_paid_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server that makes it fail would eat the budget of the rounds."""
    with monkeypatch.context() as broken:
        broken.setattr(client.fit, "losses", lambda *_: 1 / 0)
        assert site(tmp_path, PLAN).round(asked()).header["code"] == "internal"
    assert [site(tmp_path, PLAN).round(asked()).header["code"] for _ in range(2)] == ["stale-request"] * 2
    assert len(events(tmp_path)) == 1
    assert site(tmp_path, PLAN).round(asked("after")).header["kind"] == "fit", "the other end has a charge of its own"


def test_a_fit_waits_for_its_budget(tmp_path: Path) -> None:
    assert site(tmp_path, PLAN, limit=0.1).round(asked()).header["code"] == "budget-exhausted"
    assert events(tmp_path) == ()


def test_broken_code_tells_nothing_and_pays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise MechanismRefused("the noise of this step is not what its event says")

    monkeypatch.setattr(client.site, "refuse_broken_step", broken)
    assert site(tmp_path, PLAN).round(asked()).header["kind"] == "refusal"
    assert events(tmp_path) == ()


def test_values_that_fit_no_model_cost_nothing(tmp_path: Path) -> None:
    short = replace(asked(), values=np.zeros(3, np.float32))
    assert site(tmp_path, PLAN).round(short).header["code"] == "request-refused"
    assert events(tmp_path) == ()


def test_a_plan_that_tells_no_fit_or_has_no_privacy_tells_none(tmp_path: Path) -> None:
    plain = study()
    assert site(tmp_path, plain).round(asked(plan=plain)).header["code"] == "plan-refused"
    bare = study(privacy=PRIVACY | {"mechanism": "non-private"}, rehearsal={})
    assert site(tmp_path / "bare", bare).round(asked(plan=bare)).header["code"] == "plan-refused"
    assert events(tmp_path) == ()


def test_a_hospital_allows_it_in_so_many_words_or_nothing_is_told() -> None:
    assert any("how well the model fits" in said for said in Policy(epsilon=8.0, smallest_cohort=1).objections(PLAN, "north"))
    assert not Policy(epsilon=8.0, smallest_cohort=1, fit=True).objections(PLAN, "north")


@pytest.mark.parametrize("spoil", ["gone", "changed"])
def test_a_number_that_was_told_is_never_drawn_anew(tmp_path: Path, spoil: str) -> None:
    first = site(tmp_path, PLAN).round(asked()).header
    (kept,) = (tmp_path / "north" / "answers").glob("*.fit")
    if spoil == "gone":
        kept.unlink()
    else:
        kept.write_text(kept.read_text().replace(str(first["units"]), "123456"))
    answer = site(tmp_path, PLAN).round(asked()).header
    assert (answer["kind"], answer["exit_code"]) == ("refusal", 6)
    assert len(events(tmp_path)) == 1


@pytest.mark.slow
def test_a_fit_takes_no_round_s_place_and_all_of_it_spends_the_plan_s_epsilon(tmp_path: Path) -> None:
    here, said = site(tmp_path, PLAN), []
    for stage in PLAN.stages:
        said.append(here.round(asked("before", stage.name)))
        said += [here.round(request(PLAN, stage.name, number)) for number in (1, 2)]
        said.append(here.round(asked("after", stage.name, shift=0.1)))
    assert [one.header["kind"] for one in said] == ["fit", "update", "update", "fit"] * 2
    with Ledger(tmp_path / "north" / "ledger.jsonl", 1e-5) as ledger:
        assert 0.97 * 8 <= ledger.epsilon <= 8
    late = site(tmp_path, PLAN).round(asked("before", "decoder")).header
    assert late["units"] == said[0].header["units"], "late, and told again"
