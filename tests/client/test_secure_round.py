"""One site in a secure sum: what it says, what that costs, and that it says it once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.errors import DataRefused
from braing3n_core.plan import TrainingPlan
from braing3n_core.protocol import Part
from client.site import Site
from privacy.accountant import epsilon_alone
from privacy.egress import Cleared
from privacy.events import Event
from privacy.ledger import Ledger
from tests.client.studies import PEOPLE, Scans, brain, patient, request, site, study
from tests.summed import begun, sites, summed, taken, through

pytestmark = pytest.mark.slow                                # each takes rounds
PLAN = summed()


def events(out: Path, name: str = "north") -> tuple[Event, ...]:
    with Ledger(out / "sites" / name / "ledger.jsonl", 1e-5) as ledger:
        return ledger.events


def code(cleared: Cleared) -> object:
    assert cleared.header["kind"] == "refusal", dict(cleared.header)
    return cleared.header["code"]


def test_a_round_costs_its_event_and_the_sum_is_noise_around_the_gradients(tmp_path: Path) -> None:
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    total = through(summing, here)
    assert total is not None
    for name in here:
        assert events(tmp_path, name) == (here[name].event(PLAN.stage("decoder")),)
    noise = np.sqrt(summing.terms.share_variance * 3)
    assert 0.5 * noise < total.std() < 2 * noise             # 3 patients a site, clipped to a fraction of the noise


@pytest.mark.parametrize("step", ["keys", "letters", "numbers", "story", "shares"])
def test_a_step_that_is_asked_again_is_answered_as_before_also_by_another_process(tmp_path: Path, step: str) -> None:
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, step)
    said = taken(summing, here)
    before = {name: events(tmp_path, name) for name in here}
    for again in (here, sites(PLAN, tmp_path)):
        for name, (asked, answer) in said.items():
            repeated = again[name].round(asked)
            assert {**repeated.header, "ledger_head": ""} == {**answer.header, "ledger_head": ""}
            assert np.array_equal(repeated.values, answer.values) or answer.values is None  # type: ignore[arg-type]  # as seen
    assert before == {name: events(tmp_path, name) for name in here}


@pytest.mark.parametrize("step", ["letters", "numbers", "story", "shares"])
def test_a_step_before_its_turn_is_refused_and_costs_nothing(tmp_path: Path, step: str) -> None:
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    told = {"letters": "{}", "numbers": "{}", "story": '["east","north","south"]', "shares": "{}"}[step]
    asked = replace(summing.request, part=Part(1, step, told))  # type: ignore[arg-type]  # a parameter
    assert code(here["north"].round(asked)) == "sum-refused"
    taken(summing, here)
    assert code(here["north"].round(asked)) == "sum-refused"
    assert events(tmp_path) == ()


def test_another_attempt_is_another_sum_newly_paid_and_the_old_one_is_closed(tmp_path: Path) -> None:
    here, first = sites(PLAN, tmp_path), begun(PLAN)
    through(first, here, "story")
    assert len(events(tmp_path)) == 1
    second = begun(PLAN, attempt=2)
    assert through(second, here) is not None
    assert len(events(tmp_path)) == 2
    for asked in first.requests().values():
        assert code(here["north"].round(asked)) == "stale-request"


def test_an_attempt_that_ends_before_numbers_costs_nothing(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)
    for attempt in (1, 2, 3):
        through(begun(PLAN, attempt=attempt), here, "numbers")
    assert events(tmp_path) == ()


def test_a_round_that_was_passed_is_stale(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)
    through(begun(PLAN, 2), here)
    (asked, *_) = begun(PLAN, 1).requests().values()
    assert code(here["north"].round(asked)) == "stale-request"
    for kept in (tmp_path / "sites" / "north" / "sums").iterdir():
        kept.unlink()
    assert code(here["north"].round(asked)) == "stale-request"   # the ledger remembers too
    assert len(events(tmp_path)) == 1


def test_a_sum_that_was_forgotten_is_not_begun_again(tmp_path: Path) -> None:
    """With fresh keys for the old name a site would sign a second story of one sum."""
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, "story")
    (kept,) = (tmp_path / "sites" / "north" / "sums").iterdir()
    kept.unlink()
    for asked in (begun(PLAN).requests()["north"], summing.requests()["north"]):
        assert code(here["north"].round(asked)) == "sum-refused"
    assert through(begun(PLAN, attempt=2), here) is not None


def test_a_crash_between_the_charge_and_the_numbers_is_not_paid_twice(tmp_path: Path) -> None:
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, "numbers")
    event = here["north"].event(PLAN.stage("decoder"))
    with Ledger(tmp_path / "sites" / "north" / "ledger.jsonl", 1e-5) as ledger:
        ledger.reserve(event, summing.terms.context, 4.0)
    assert through(summing, here) is not None
    assert events(tmp_path) == (event,)


def test_numbers_that_are_gone_are_not_made_again_in_the_same_sum(tmp_path: Path) -> None:
    here, summing = sites(PLAN, tmp_path), begun(PLAN)
    through(summing, here, "numbers")
    asked = summing.requests()["north"]
    assert here["north"].round(asked).header["kind"] == "masked"
    for spoil in ("changed", "gone"):
        for kept in (tmp_path / "sites" / "north" / "answers").iterdir():
            kept.write_bytes(kept.read_bytes()[:-1] + b"?") if spoil == "changed" else kept.unlink()
        assert code(here["north"].round(asked)) in ("sum-refused", "integrity")
    assert len(events(tmp_path)) == 1


def test_training_that_fails_stays_paid_and_its_words_stay_here(tmp_path: Path) -> None:
    wrong = patient(8)
    wrong.scans[0].conditions["sex"] = "sub-0008"
    plan = summed(stages=[PLAN.stage("decoder").model_dump() | {"name": "generator", "trainable": "lora:1", "rounds": 3}])
    here = sites(plan, tmp_path, [patient(7), wrong])
    summing = begun(plan)
    through(summing, here, "numbers")
    asked = summing.requests()["north"]
    for charges in (1, 2):
        assert code(here["north"].round(asked)) == "internal"
        assert len(events(tmp_path)) == charges


def test_no_patients_are_pure_noise_at_the_same_price(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path, [patient(1, held_out=True)])
    assert through(begun(PLAN), here) is not None
    assert events(tmp_path) == (here["north"].event(PLAN.stage("decoder")),)


def test_a_site_that_cannot_pay_does_not_join_and_the_fallback_is_a_limit_too(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)["north"]
    (asked, *_) = begun(PLAN).requests().values()
    alone = epsilon_alone([here.event(PLAN.stage("decoder"))], 1e-5)
    for limits in ({"limit": 0.1}, {"fallback": 0.9 * alone}):
        poor = limited(here, **limits)
        assert code(poor.round(asked)) == "budget-exhausted"
    assert events(tmp_path) == ()
    assert limited(here, fallback=1.1 * alone).round(asked).header["kind"] == "sum"


def limited(here: Site, limit: float | None = None, fallback: float | None = None) -> Site:
    return Site(
        here.name, here.plan, here.folder, here.bids, limit, fallback=fallback, enrolled=here.enrolled,
        model_source=brain, cohort_source=Scans(PEOPLE),
    )  # fmt: skip


def test_a_plan_whose_shares_are_worth_less_than_it_states_is_not_ready(tmp_path: Path) -> None:
    rests_on = {"fallback_epsilon": 4.1, "dropped": 0, "colluding": 1}
    weak = summed(privacy=PLAN.privacy.model_dump() | {"secure_sum": rests_on})
    assert code(sites(weak, tmp_path)["north"].ready()) == "plan-refused"
    assert "more than fallback_epsilon=4.1" in (tmp_path / "sites" / "north" / "site.log").read_text()
    assert sites(PLAN, tmp_path / "fine")["north"].ready().header["kind"] == "ready"


def test_unreadable_data_is_said_before_a_sum_is_joined(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)["north"]
    blind = Site(here.name, PLAN, here.folder, here.bids, enrolled=here.enrolled, model_source=brain,
                 cohort_source=Scans(error=DataRefused("no scans in /data/sub-0042")))  # fmt: skip
    (asked, *_) = begun(PLAN).requests().values()
    assert code(blind.round(asked)) == "data-refused"


def test_updates_and_sums_are_not_mixed_up(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)["north"]
    assert code(here.round(begun(PLAN).request)) == "plan-refused"
    local = study()
    asked = replace(request(local), part=Part(1, "keys", ""))
    assert code(site(tmp_path / "local", local).round(asked)) == "plan-refused"
    keyless = Site("north", PLAN, tmp_path / "keyless", tmp_path, model_source=brain, cohort_source=Scans())
    assert code(keyless.ready()) == "bad-settings"


@pytest.mark.parametrize(
    "part", [(0, "keys", ""), (True, "keys", ""), (1, "else", ""), (1, "keys", None), (1 << 21, "keys", "")]
)
def test_a_part_that_is_none_is_refused(tmp_path: Path, part: tuple[int, str, str]) -> None:
    here = sites(PLAN, tmp_path)["north"]
    asked = replace(begun(PLAN).request, part=Part(*part))  # type: ignore[arg-type]  # wrong types are the test
    assert code(here.round(asked)) == "plan-refused"


def test_what_a_site_keeps_of_a_sum_is_for_its_owner_and_only_of_the_newest(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)
    for number in (1, 2):
        through(begun(PLAN, number), here)
    (kept,) = (tmp_path / "sites" / "north" / "sums").iterdir()
    assert kept.parent.stat().st_mode & 0o077 == 0
    assert json.loads(kept.read_bytes())["place"] == [0, 2, 1]
    kept.write_text("{}")
    (asked, *_) = begun(PLAN, 2).requests().values()
    assert code(here["north"].round(asked)) == "integrity"


def test_the_plan_is_what_a_site_works_its_terms_out_of(tmp_path: Path) -> None:
    here = sites(PLAN, tmp_path)["north"]
    greedy = TrainingPlan.from_json(PLAN.canonical().replace('"epsilon":4.0', '"epsilon":11.0'))
    (asked, *_) = begun(greedy).requests().values()
    assert code(here.round(asked)) == "plan-refused"
