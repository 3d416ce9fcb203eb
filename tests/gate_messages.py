"""Flower's real messages to a hospital's gate, and what comes back: needs Flower, and skips without it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.attacks.bundles import GOOD, HONEST, approved_with
from tests.client.studies import brain, request
from tests.consortium import Study

if TYPE_CHECKING:
    from flwr.app import Message


def gated(place: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A hospital that approved the study and the bundle, in a process that may make Flower's messages."""
    pytest.importorskip("flwr", reason="the gate answers Flower's own messages")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's and Click's own
        from flwr.supercore.task_identity import TaskIdentity
    monkeypatch.setattr("client.site.load_prior", brain)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    return approved_with(place)


def asked(one: Study, kind: str = "train.round", **changes: Any) -> Message:
    """The first round, as the server's app asks for it, and what a hostile one changes in it."""
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

    work = request(one.plan)
    config = {"site": "north", "plan": one.plan.digest, "stage": work.stage, "round": work.round} | changes
    content = RecordDict({"request": ConfigRecord(config), "values": ArrayRecord([work.values])})
    return Message(content, 1, kind)


def answer(one: Study, message: Message, content: bytes = GOOD, **config: Any) -> dict[str, Any]:
    """The header of a reply that holds one header and nothing else."""
    from flwr.app import Context, Message, RecordDict

    from client import answer as answering

    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={**HONEST, **config})
    reply = answering.answered(one.site, message, context, content, one.site.key)
    assert isinstance(reply, Message)
    assert set(reply.content.config_records) == {"north.header"}
    assert not reply.content.array_records
    return dict(reply.content.config_records["north.header"])
