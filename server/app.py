"""The server's side of Flower: messages out, replies in, and nothing else. What a run does is in conduct.py."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

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
_POLL_S = 0.2


class FlowerSites:
    """The sites of a plan behind Flower's nodes. A node may play several sites; a site is played by one node."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._node: dict[str, int] = {}                      # site -> node

    def ready(self) -> Iterator[Reply | None]:
        """Ask every node, also those that connect while others get ready, which of the sites it plays."""
        asked: set[int] = set()
        pending: set[str] = set()
        while True:
            new = [node for node in self._grid.get_node_ids() if node not in asked]
            asked |= set(new)
            pending |= set(self._grid.push_messages([Message(RecordDict({}), node, "query.ready") for node in new]))
            for message in self._pull(pending):
                for site, header, values in _replies(message):
                    self._node.setdefault(site, message.metadata.src_node_id)
                    if self._node[site] == message.metadata.src_node_id:
                        yield site, header, values
            yield None
            time.sleep(_POLL_S)

    def ask(self, request: Request, sites: Sequence[str]) -> Iterator[Reply | None]:
        """One message per site. A site whose node is unknown or gone stays silent."""
        known = [site for site in sites if site in self._node]
        messages = [Message(_content(request, site), self._node[site], "train.round") for site in known]
        identifiers = list(self._grid.push_messages(messages))
        of = dict(zip(identifiers, known, strict=False))
        pending = set(identifiers)
        while True:
            for message in self._pull(pending):
                site = of[message.metadata.reply_to_message_id]
                yield from (reply for reply in _replies(message, site) if reply[0] == site)
            yield None
            time.sleep(_POLL_S)

    def _pull(self, pending: set[str]) -> list[Message]:
        messages = list(self._grid.pull_messages(pending)) if pending else []
        pending -= {message.metadata.reply_to_message_id for message in messages}
        return messages


def _content(request: Request, site: str) -> RecordDict:
    config = {"site": site, "plan": request.plan, "stage": request.stage, "round": request.round}
    return RecordDict({"request": ConfigRecord(config), "values": ArrayRecord([request.values])})


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
    code = run(plan, out, FlowerSites(grid), say, lambda model, spent: publish_release(plan, model, spent, out, say))
    if code:
        raise Braing3nError(f"the run ended with exit code {code}; {out / 'run.json'} says why")
