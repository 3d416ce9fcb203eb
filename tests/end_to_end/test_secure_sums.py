"""A consortium that takes secure sums, as hospitals run it: processes, TLS, enrolled keys; a node dies on the way."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from privacy.accountant import epsilon_alone
from privacy.ledger import Ledger
from tests.end_to_end.hospitals import Consortium, command, consortium

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]
PATIENTS, ROUNDS = 4, 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    with consortium(tmp_path_factory.mktemp("sums"), summed=True) as made:
        made.begin(PATIENTS, ROUNDS, quorum=3)
        made.serve()
        for name in made.names:
            made.join(name)
        made.start()
        made.until("start", "round 1 of 2, 3 of 3", 900)
        made.kill("north")                                   # between two steps, wherever the second round is
        made.join("north")
        assert made.ended("start", 1500) == 0, made.said()
        yield made


def test_the_run_ends_with_a_release_and_no_round_was_paid_twice(ended: Consortium) -> None:
    assert json.loads((ended.run / "run.json").read_text())["exit_code"] == 0
    rows = [json.loads(line) for line in (ended.run / "rounds.jsonl").read_text().splitlines()]
    assert [row["replied"] for row in rows] == [sorted(ended.names)] * ROUNDS
    assert [row["messages"] for row in rows] == [2 * 5 * len(ended.names)] * ROUNDS
    certificate = json.loads((ended.run / "release" / "docs" / "privacy_certificate.json").read_text())
    for name in ended.names:
        with Ledger(ended.site(name) / "ledger.jsonl", 1e-4) as ledger:
            assert len(ledger.events) == ROUNDS
            assert rows[-1]["epsilon"][name] == ledger.epsilon <= 8
            assert certificate["epsilon"] == pytest.approx(ledger.epsilon)
            assert certificate["fallback"] == pytest.approx(epsilon_alone(ledger.events, ledger.delta))
            assert ledger.epsilon < certificate["fallback"] <= 20


def test_a_hospital_s_audit_log_names_each_step_and_holds_no_secret(ended: Consortium) -> None:
    for name in ended.names:
        lines = [json.loads(line) for line in (ended.site(name) / "audit.jsonl").read_text().splitlines()]
        steps = [line["header"].get("step", line["header"]["kind"]) for line in lines]
        assert list(dict.fromkeys(steps)) == ["ready", "keys", "letters", "masked", "story", "shares"]
        assert all(len(line["header"]["said"]) == 64 for line in lines if line["header"]["kind"] == "sum")


def test_the_review_said_who_is_kept_from_what(ended: Consortium) -> None:
    said = command("braing3n-site", "review", ended.signed, "--site", ended.site("north")).stdout
    assert "up to 1 other hospital that work" in said
    assert "against the server and all 2 other hospitals together only this hospital's own noise counts" in said
