"""The server's side of Flower: messages out, replies in, and nothing else. What a run does is in conduct.py."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from braing3n_core.console import say
from braing3n_core.errors import Braing3nError
from braing3n_core.protocol import Request
from braing3n_core.settings import Settings
from server.conduct import Reply, run
from server.finish import publish_release

app = ServerApp()
_POLL_S = 0.2                                                # between two looks at what came, in simulation;
_SLOW_POLL_S = 0.5                                           # nodes far away ask every three seconds themselves
_TRIES = 5                                                   # for a node that fails in one round


class FlowerSites:
    """The sites of a plan behind Flower's nodes. A node may play several sites; a site is played by one node.

    With `keys`, the sites' enrolled public keys (PEM), a node speaks for the site whose key it holds and for no other: Flower
    has checked that it holds it. A request to a node that failed or began anew is sent again, at no charge to the site: it
    takes its reservation up, or gives the answer it gave before.
    """

    def __init__(self, grid: Grid, plan: str, keys: Mapping[str, str] | None = None) -> None:
        self._grid, self._plan = grid, plan
        self._owner = {pem.strip(): site for site, pem in keys.items()} if keys is not None else None
        self._poll_s = _POLL_S if keys is None else _SLOW_POLL_S
        self._node: dict[str, int] = {}                      # site -> node, in simulation

    def ready(self) -> Iterator[Reply | None]:
        """Ask every node, also those that connect while others get ready, which of the sites it plays."""
        asked: dict[int, str] = {}                           # node -> since when it is there
        pending, failed = set[str](), list[int]()
        while True:
            there = {node: since for node, (since, _) in self._nodes().items()}
            new = [node for node, since in there.items() if asked.get(node) != since]
            asked |= {node: there[node] for node in new}
            request = RecordDict({"request": ConfigRecord({"plan": self._plan})})
            pending |= set(self._grid.push_messages([Message(request, node, "query.ready") for node in new]))
            for message in self._pull(pending):
                node = message.metadata.src_node_id
                if not message.has_content() and failed.count(node) < _TRIES:
                    failed.append(node)
                    asked.pop(node, None)                    # ask it again
                    continue
                for site, header, values in _replies(message):
                    if self._speaks_for(site, node):
                        yield site, header, values
            yield None
            time.sleep(self._poll_s)

    def ask(self, requests: Mapping[str, Request]) -> Iterator[Reply | None]:
        """One message per site, as soon as its node is there; again to a node that failed or began anew."""
        left, sent = dict.fromkeys(requests, _TRIES), dict[str, _Sent]()
        arrays = {id(one.values): ArrayRecord([one.values]) for one in requests.values()}      # one copy, for all who get it
        while True:
            there = self._site_nodes()
            for message in self._pull(set(sent)):
                site = sent.pop(message.metadata.reply_to_message_id).site
                if message.has_content() or not left[site]:
                    left[site] = 0
                    yield from (reply for reply in _replies(message, site) if reply[0] == site)
            for number, one in list(sent.items()):
                if there.get(one.site, one.where) != one.where:
                    del sent[number]                         # the node that had it began anew, and the message is lost
                    left[one.site] += 1
            on_their_way = {one.site for one in sent.values()}
            for site, request in requests.items():
                if left[site] and site in there and site not in on_their_way:
                    left[site] -= 1
                    sent |= self._sent(request, arrays[id(request.values)], site, there[site])
            yield None
            time.sleep(self._poll_s)

    def _sent(self, request: Request, values: ArrayRecord, site: str, where: tuple[int, str]) -> dict[str, _Sent]:
        content = RecordDict({"request": _words(request, site), "values": values})
        numbers = self._grid.push_messages([Message(content, where[0], "train.round")])
        return {number: _Sent(site, where) for number in numbers}

    def _nodes(self) -> dict[int, tuple[str, str]]:
        """Node -> since when it is there, and the site whose key it holds, if keys matter; other nodes are left out."""
        if self._owner is None:
            return dict.fromkeys(self._grid.get_node_ids(), ("", ""))
        owned = [(node, self._owner.get(_pem(node.public_key))) for node in self._grid.get_nodes()]
        return {node.node_id: (str(node.last_activated_at), site) for node, site in owned if site is not None}

    def _site_nodes(self) -> dict[str, tuple[int, str]]:
        """Site -> the node that plays it now, and since when."""
        if self._owner is None:
            return {site: (node, "") for site, node in self._node.items()}
        return {site: (node, since) for node, (since, site) in self._nodes().items()}

    def _speaks_for(self, site: str, node: int) -> bool:
        """Whether this node may answer for `site`: its key says so or, in simulation, it was the first to do so."""
        if self._owner is not None:
            return self._nodes().get(node, ("", ""))[1] == site
        return self._node.setdefault(site, node) == node

    def _pull(self, pending: set[str]) -> list[Message]:
        messages = list(self._grid.pull_messages(pending)) if pending else []
        pending -= {message.metadata.reply_to_message_id for message in messages}
        return messages


@dataclass(frozen=True)
class _Sent:
    """A request on its way: to which site, at which node, that came when."""

    site: str
    where: tuple[int, str]


def _pem(key: bytes) -> str:
    return key.decode("ascii", "replace").strip()


def _words(request: Request, site: str) -> ConfigRecord:
    config: dict[str, str | int] = {"site": site, "plan": request.plan, "stage": request.stage, "round": request.round}
    if (part := request.part) is not None:
        config |= {"attempt": part.attempt, "step": part.step, "told": part.told}
    if request.end is not None:
        config |= {"end": request.end}
    return ConfigRecord(config)


def _replies(message: Message, site: str = "") -> list[Reply]:
    """A message's replies by site: `<site>.header` and, for an update, `<site>.values`. An error says only that it is one."""
    if not message.has_content():
        return [(site, {"kind": "refusal", "code": "node-failed"}, None)]
    found: list[Reply] = []
    for name, record in message.content.config_records.items():
        played = name.removesuffix(".header")
        arrays = message.content.array_records.get(f"{played}.values")
        found.append((played, dict(record), _first(arrays)))
    return found or [(site, {"kind": "refusal", "code": "empty-reply"}, None)]


def _first(arrays: ArrayRecord | None) -> np.ndarray | None:
    """The one array of a record; None if it has another number of them or is not an array at all."""
    try:
        found = arrays.to_numpy_ndarrays() if arrays is not None else []
    except (TypeError, ValueError):
        return None
    return found[0] if len(found) == 1 else None


@app.main()  # type: ignore[untyped-decorator]  # Flower is skipped by mypy
def main(grid: Grid, context: Context) -> None:
    """One run. Its true exit code is in <out>/run.json; Flower's own is 0 whatever happened."""
    try:
        settings = Settings.read(context.run_config, str(context.run_id))
    except Braing3nError as error:
        say(f"stopped: {error}")
        raise
    plan, out = settings.plan, settings.out
    keys = json.loads((out / "sites.json").read_text(encoding="utf-8")) if settings.deployed else None
    sites = FlowerSites(grid, plan.digest, keys)
    code = run(plan, out, sites, say, lambda model, spent: publish_release(plan, model, spent, out, say))
    if code:
        raise Braing3nError(f"the run ended with exit code {code}; {out / 'run.json'} says why")
