from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from braing3n_core.errors import GateBlocked
from braing3n_core.plan import TrainingPlan
from privacy.accountant import epsilon
from privacy.events import NonPrivate, RandomisedResponse, SampledGaussian
from server.fit import Reading, Told
from server.release.anatomy import examine
from server.release.charts import bars
from server.release.gates import Gate
from server.release.numbers import metrics_json, subgroups
from server.release.report import (
    ReleaseInputs,
    StagePrivacy,
    meaning,
    number,
    render,
    site_privacy,
    verdict,
)
from tests.server.release.conftest import ROW, SITE
from tests.server.release.hospitals import EDITION


@pytest.fixture(scope="module")
def page(inputs: ReleaseInputs) -> str:
    return render(inputs)


class Addresses(HTMLParser):
    """Every attribute that a browser would fetch, every tag, and all visible text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = {"src", "srcset", "href", "action", "data", "poster", "background", "cite", "formaction", "xlink:href"}
        self.fetched += [value or "" for name, value in attrs if name in names]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] not in (["style"], ["script"]):
            self.text += data


def test_nothing_is_ever_fetched_from_anywhere(page: str) -> None:
    addresses = Addresses(page)
    assert addresses.fetched, "the check sees images"
    assert all(value.startswith(("data:image/", "#")) for value in addresses.fetched)
    assert not re.search(r'url\((?!"data:image/)', page)
    assert not {"link", "iframe", "object", "embed", "base", "form", "video"} & set(addresses.tags)
    assert "@import" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; img-src data:;")


def test_the_policy_lets_exactly_our_script_run(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(scripts) == page.count("<script") == 1
    assert "sha256-" + base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode() in page


@pytest.mark.slow
def test_how_well_the_model_fits_stands_beside_its_noise_where_it_was_told(inputs: ReleaseInputs, page: str) -> None:
    assert "fits the hospitals" not in page
    told = [Reading("generator", end, {"site-a": Told(value, 0.03)}, Told(value, 0.02))
            for end, value in (("before", 0.86), ("after", -0.17))]  # fmt: skip
    text = render(dataclasses.replace(inputs, fits=told))
    for needed in ("0.86 +- 0.02", "-0.17 +- 0.02", "site-a -0.17 +- 0.03", "fits better than before"):
        assert needed in text, needed
    numbers = json.loads(metrics_json(dataclasses.replace(inputs, fits=told)))
    assert numbers["fit"][1]["pooled"] == {"noise": 0.02, "value": -0.17}
    assert "fit" not in json.loads(metrics_json(inputs))


def test_words_of_the_plan_are_text_and_never_markup(page: str, plan: TrainingPlan) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    text = Addresses(page).text
    assert plan.question in text
    assert "phantoms <b>only</b>" in text
    assert "<img src=//evil>" in text
    assert "the arm was <i>off</i>" in text


def test_a_missing_number_is_never_nan(page: str) -> None:
    text = Addresses(page).text
    assert not re.search(r"\b(nan|NaN|inf)\b|\bNone\b(?! of)", text)
    assert text.count("not measured") == 4
    assert number(math.nan) == number(None) == "not measured"
    assert number(math.inf) == "infinite"


def test_every_number_stands_beside_its_baseline_and_the_three_arms(page: str) -> None:
    text = Addresses(page).text
    for words in ("24.6 dB", "public mean volume", "27.2 dB", "28.1 dB", "28.9 dB", "better than baseline by 3.50 dB"):
        assert words in text


@pytest.mark.parametrize(
    ("better", "private", "words"),
    [
        ("higher", 20.0, "worse than baseline by 4.60 dB"),
        ("lower", 20.0, "better than baseline by 4.60 dB"),
        ("closer", 25.0, "0.40 dB above its target"),
        ("higher", 24.6, "equal to baseline"),
        ("higher", math.nan, ""),
        ("higher", None, ""),
    ],
)
def test_a_worse_number_is_never_called_better(better: str, private: float | None, words: str) -> None:
    assert verdict(dataclasses.replace(ROW, better=better, private=private)) == words


def test_the_privacy_table_says_what_the_guarantee_is_about(page: str) -> None:
    text = Addresses(page).text
    for words in (
        "5.40 of 8.00", "0.0001", "6.20", "one patient with all scans", "add or remove one patient", "PRV", "RDP bound",
        "DP-SGD", "Noise multiplier", "3.20", "site-b", "no attack was run", "What is not covered", "k times epsilon",
    ):
        assert words in text
    assert not re.search(r"anonym|GDPR|no privacy risk|cannot be re-identified", text, re.IGNORECASE)


def test_the_header_says_synthetic_and_not_for_diagnosis(page: str, plan: TrainingPlan) -> None:
    text = Addresses(page).text
    assert "SYNTHETIC \N{EN DASH} not for diagnosis" in text
    assert plan.digest in text
    assert "sha256sum -c SHA256SUMS" in text


@pytest.mark.slow
def test_the_same_inputs_give_the_same_report_and_it_travels(inputs: ReleaseInputs, page: str) -> None:
    assert render(inputs) == page
    assert len(page.encode()) < 15_000_000


def test_a_release_of_one_modality_never_speaks_of_another(page: str) -> None:
    assert "FLAIR" not in page
    assert "data-kind" not in page


def test_a_bare_release_still_has_a_report(plan: TrainingPlan, inputs: ReleaseInputs) -> None:
    text = Addresses(render(ReleaseInputs(plan, inputs.people, inputs.volumes))).text
    assert "not measured: this release was made without a quality panel" in text
    assert "not measured: no site reported what it spent" in text


def test_training_without_privacy_is_never_dressed_up(plan: TrainingPlan, inputs: ReleaseInputs) -> None:
    bare = plan.but(privacy=plan.privacy.model_copy(update={"mechanism": "non-private"}))
    spent = site_privacy("site-a", [NonPrivate("decoder")], 8.0, 1e-4)
    text = Addresses(render(dataclasses.replace(inputs, plan=bare, privacy=(spent,), rounds=()))).text
    assert "No privacy guarantee." in text
    assert "infinite of 8.00" in text
    assert "learns nearly the same" not in text
    assert "%" not in text.split("Unit of privacy")[0].split("What this is")[-1], "no bound in plain words"


def test_what_a_site_spent_is_counted_over_all_its_events() -> None:
    events = [SampledGaussian("decoder", 2.0, 0.2, 4), SampledGaussian("decoder", 2.0, 0.2, 4),
              SampledGaussian("generator", 3.0, 0.1, 8)]
    row = site_privacy("site-a", events, 8.0, 1e-4)
    assert row.epsilon == epsilon(events, 1e-4)
    assert row.epsilon_rdp > 0
    assert row.stages == (StagePrivacy("decoder", 2.0, 0.2, 8), StagePrivacy("generator", 3.0, 0.1, 8))


@pytest.mark.parametrize("poison", [math.nan, -1.0])
def test_an_unknown_cost_is_refused(poison: float) -> None:
    with pytest.raises(GateBlocked, match="site-a"):
        dataclasses.replace(SITE, epsilon=poison)


def test_the_plain_words_never_promise_more_than_epsilon_and_delta() -> None:
    assert meaning(dataclasses.replace(SITE, epsilon=math.inf)) is None
    none = meaning(dataclasses.replace(SITE, epsilon=0.0, delta=1e-9))
    assert none
    assert (none["posterior"], none["caught"]) == ("50 %", "1 %")
    vast = meaning(dataclasses.replace(SITE, epsilon=50.0))
    assert vast
    assert vast["posterior"] == vast["caught"] == "100.00 %"
    one = meaning(dataclasses.replace(SITE, epsilon=1.0))
    assert one
    assert (one["posterior"], one["caught"]) == ("73 %", "3 %")


@pytest.mark.slow
def test_the_verdict_stands_first_with_what_every_gate_found(plan: TrainingPlan, inputs: ReleaseInputs) -> None:
    verdicts = (Gate("budget", True, "5.4 of 8", "8"), Gate("copies", True, "no vote was held", "none", applies=False))
    text = Addresses(render(dataclasses.replace(inputs, gates=verdicts, edition=EDITION))).text
    head = text.split("What this is")[0]
    for words in ("WARNED", "some had nothing to judge", "5.4 of 8", "no vote was held", "demo-1.0.0"):
        assert words in head
    assert "nothing to judge" in text.split("Gates")[-1]
    assert "above it in" in text, "the planted copies are counted beside the histogram"


@pytest.mark.slow
def test_every_dot_and_every_picture_opens_an_image_that_is_there(plan: TrainingPlan, inputs: ReleaseInputs) -> None:
    found = [examine(volume, plan.model) for volume in inputs.volumes]
    html = render(dataclasses.replace(inputs, findings=found))
    people = [int(number) for number in re.findall(r'data-person="(\d+)"', html)]
    assert set(people) == set(range(6))
    assert len(people) == 6 * 5, "a picture and four strips"
    assert html.count("<option ") == 6
    assert all(0 <= float(left) <= 100 for left in re.findall(r"left:([-.\d]+)%", html))


def test_the_bars_of_a_ledger_add_up_to_what_was_spent() -> None:
    training = [SampledGaussian("decoder", 2.0, 0.2, 4), SampledGaussian("generator", 3.0, 0.1, 8)]
    events = [training[0], RandomisedResponse("copies", 2.0), training[1]]
    row = site_privacy("site-a", events, 8.0, 1e-4)
    (bar,) = bars([row])
    assert [part.stage for part in bar.segments] == ["decoder", "copies", "generator"]
    assert sum(part.epsilon for part in bar.segments) == pytest.approx(row.epsilon)
    assert bars([SITE]) == [], "without events there is nothing to draw"


def test_subgroups_are_counted_and_an_empty_one_is_not_hidden(inputs: ReleaseInputs) -> None:
    groups = subgroups(inputs)
    assert sum(groups["sex"].values()) == 6
    assert groups["diagnosis"]["depression"] == 0
    assert groups["diagnosis"]["not requested"] == 2
