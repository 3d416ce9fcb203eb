"""The hospital's own `flwr-clientapp`, with Flower's real messages: what a server asks, and all it ever hears."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.attacks.bundles import GOOD, bundle
from tests.client.studies import charges
from tests.consortium import Study, write_site_file
from tests.gate_messages import answer, asked, gated

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)      # Flower's and Click's own
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    from client import clientapp

PATIENT = "sub-4711"


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    return gated(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("message", "content", "config", "code"),
    [
        ({"plan": "0" * 64}, GOOD, {}, "plan-refused"),
        ({"plan": "../../../etc"}, GOOD, {}, "plan-refused"),
        ({"site": "south"}, GOOD, {}, "plan-refused"),
        ({}, GOOD, {"epsilon": 1000.0}, "plan-refused"),
        ({}, GOOD, {"noise": 0.0}, "plan-refused"),
        ({}, bundle(client_py="evil"), {}, "integrity"),
        ({}, bundle(privacy__mechanism_py=""), {}, "integrity"),
        ({}, b"", {}, "integrity"),
    ],
    ids=["unknown plan", "path", "other site", "epsilon", "noise", "client.py", "privacy/", "empty"],
)
def test_a_request_that_breaks_a_rule_costs_nothing_and_gets_one_fixed_word(
    one: Study, message: dict[str, Any], content: bytes, config: dict[str, Any], code: str
) -> None:
    header = answer(one, asked(one, **message), content, **config)
    assert (header["kind"], header["code"]) == ("refusal", code)
    assert charges(one.place) == 0
    line = json.loads((one.site.folder / "audit.jsonl").read_text().splitlines()[-1])
    assert line["header"] == header


def test_a_message_without_anything_in_it_is_refused(one: Study) -> None:
    empty = [RecordDict({}), RecordDict({"request": ConfigRecord({})}), RecordDict({"values": ArrayRecord([np.ones(3)])})]
    for content in empty:
        for kind in ("train.round", "query.ready", "train", "evaluate"):
            assert answer(one, Message(content, 1, kind))["kind"] == "refusal"
    assert charges(one.place) == 0


def test_a_policy_that_was_tightened_ends_the_work_at_once(one: Study) -> None:
    write_site_file(one.site.folder, {"epsilon": 0.5, "smallest_cohort": 8})
    assert answer(one, asked(one))["code"] == "plan-refused"


def test_the_wrapper_stands_before_flower_s_own_program(one: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the node would start is ours: what unpacks, imports and words errors is replaced before any message."""
    flower = clientapp.flower
    for name in ("pull_task_input", "get_load_client_app_fn", "install_from_fab", "Error"):
        monkeypatch.setattr(flower, name, getattr(flower, name))
    ran: list[bool] = []
    monkeypatch.setattr(clientapp, "flwr_clientapp", lambda: ran.append(True))
    before = flower.install_from_fab
    with pytest.raises(SystemExit):
        clientapp.main(str(one.site.folder), str(one.site.key))
    assert ran == [True]
    assert flower.install_from_fab is not before
    assert PATIENT not in str(flower.Error(code=2, reason=f"/data/{PATIENT}.nii.gz").reason)
    assert PATIENT in (one.site.folder / "site.log").read_text()
