"""Flower's grid as the server's app sees it, on which a test says what every node does."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from braing3n_core.protocol import Request
from privacy.signing import SigningKey

if TYPE_CHECKING:
    from server.app import FlowerSites

KEYS = {name: SigningKey.generate().public.pem for name in ("north", "south")}
ENROLLED = {name: pem.decode() for name, pem in KEYS.items()}
REQUEST = Request("p" * 64, "decoder", 1, np.zeros(3, np.float32))


def flower() -> ModuleType:
    """Flower's records, imported late: a test that needs them is skipped where there is no Flower."""
    app: ModuleType = pytest.importorskip("flwr.app", reason="these are Flower's own messages")
    return app


class Grid:
    """Nodes by number, each with a key and a time since when it is there; replies wait until they are pulled."""

    def __init__(self) -> None:
        self.nodes: dict[int, tuple[bytes, str]] = {}
        self.sent: list[tuple[str, int]] = []                # message number, node
        self.waiting: dict[str, Any] = {}
        self._numbers = itertools.count()

    def get_nodes(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(node_id=n, public_key=key, last_activated_at=at) for n, (key, at) in self.nodes.items()]

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        numbers = []
        for message in messages:
            number = f"m{next(self._numbers)}"
            self.sent.append((number, message.metadata.dst_node_id))
            numbers.append(number)
        return numbers

    def pull_messages(self, numbers: Iterable[str]) -> list[Any]:
        return [self.waiting.pop(number) for number in list(numbers) if number in self.waiting]

    def reply(self, number: str, node: int, header: dict[str, Any] | None) -> None:
        """A node's answer; {}: one with nothing in it; None: Flower's own word that it failed."""
        records = flower()
        words = {f"{header['site']}.header": records.ConfigRecord(header)} if header else {}
        content = None if header is None else records.RecordDict(words)
        metadata = SimpleNamespace(reply_to_message_id=number, src_node_id=node)
        self.waiting[number] = SimpleNamespace(
            metadata=metadata, content=content, error=records.Error(0), has_content=lambda: content is not None
        )


def scripted(monkeypatch: pytest.MonkeyPatch) -> Grid:
    """A grid on which north and south are nodes 1 and 2, with their keys."""
    flower()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Flower's and Click's own
        from flwr.supercore.task_identity import TaskIdentity

        from server import app as module
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    made = Grid()
    made.nodes = {1: (KEYS["north"], "a"), 2: (KEYS["south"], "a")}
    return made


def sites(grid: Grid) -> FlowerSites:
    from server.app import FlowerSites

    return FlowerSites(grid, "p" * 64, ENROLLED)


def update(site: str) -> dict[str, Any]:
    return {"kind": "update", "site": site}
