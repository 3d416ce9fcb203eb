"""The hospital's own `flwr-clientapp`, with Flower's real messages: what a server asks, and all it ever hears."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.approvals import approve
from client.gate import PINNED
from client.join import write_gate
from privacy.ledger import Ledger
from tests.attacks.bundles import GOOD, bundle, digest
from tests.client.studies import brain, request
from tests.consortium import Study, begun, write_site_file

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)      # Flower's and Click's own
    from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from client import answer as answering
    from client import clientapp

CONFIG = {**PINNED, "plan": "/srv/plan.json", "out-dir": "/srv/out"}
PATIENT = "sub-4711"


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr("client.site.load_prior", brain)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    made = begun(tmp_path)
    approve(made.site, made.sent(made.agreement(bundle=digest(GOOD))), made.keys["north"], digest(GOOD))
    return made


def asked(one: Study, **changes: Any) -> Message:
    work = request(one.plan)
    config = {"site": "north", "plan": one.plan.digest, "stage": work.stage, "round": work.round} | changes
    content = RecordDict({"request": ConfigRecord(config), "values": ArrayRecord([work.values])})
    return Message(content, 1, "train.round")


def answer(one: Study, message: Message, content: bytes = GOOD, **config: Any) -> dict[str, Any]:
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={**CONFIG, **config})
    reply = answering.answered(one.site, message, context, content, one.site.key)
    assert isinstance(reply, Message)
    assert set(reply.content.config_records) == {"north.header"}
    assert not reply.content.array_records
    return dict(reply.content.config_records["north.header"])


def charges(one: Study) -> int:
    path = one.site.folder / "ledger.jsonl"
    if not path.exists():
        return 0
    with Ledger(path, one.plan.privacy.delta) as ledger:
        return len(ledger.events)


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
    assert charges(one) == 0
    line = json.loads((one.site.folder / "audit.jsonl").read_text().splitlines()[-1])
    assert line["header"] == header


def test_a_patient_s_file_name_stays_in_the_hospital_s_own_log(one: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"patient {PATIENT} file /data/{PATIENT}_T1w.nii.gz missing")

    monkeypatch.setattr("client.site.Site.round", broken)
    header = answer(one, asked(one))
    assert header == {"kind": "refusal", "site": "north", "code": "internal", "exit_code": 1}
    assert PATIENT in (one.site.folder / "site.log").read_text()


@pytest.mark.parametrize("returned", [None, 3, "update", {"values": [1.0]}])
def test_whatever_the_site_returns_there_is_a_reply_and_the_node_is_not_wedged(
    one: Study, returned: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.site.Site.round", lambda *_: returned)
    assert answer(one, asked(one))["code"] == "internal"


def test_a_message_without_anything_in_it_is_refused(one: Study) -> None:
    empty = [RecordDict({}), RecordDict({"request": ConfigRecord({})}), RecordDict({"values": ArrayRecord([np.ones(3)])})]
    for content in empty:
        for kind in ("train.round", "query.ready", "train", "evaluate"):
            assert answer(one, Message(content, 1, kind))["kind"] == "refusal"
    assert charges(one) == 0


def test_a_policy_that_was_tightened_ends_the_work_at_once(one: Study) -> None:
    write_site_file(one.site.folder, {"epsilon": 0.5, "smallest_cohort": 8})
    assert answer(one, asked(one))["code"] == "plan-refused"


def test_nothing_of_a_bundle_is_unpacked_imported_or_even_named_by_the_wrapper(one: Study, tmp_path: Path) -> None:
    """In a working directory full of packages of our names, the wrapper still finds the installed ones."""
    gate = write_gate(one.site.folder, one.site.key)
    assert gate.stat().st_mode & 0o777 == 0o700
    hostile = tmp_path / "cwd"
    for name in ("client", "privacy", "braing3n_core", "torch"):
        (hostile / name).mkdir(parents=True)
        (hostile / name / "__init__.py").write_text("raise SystemExit('shadowed')")
    done = subprocess.run(
        [gate, "--help"], cwd=hostile, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(hostile)},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Run a Flower ClientApp" in done.stdout
    assert sys.executable in gate.read_text()


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
