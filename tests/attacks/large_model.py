"""A round of 64 million numbers: the server's own round loop and a site's own egress, with nothing trained in between."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from braing3n_core.console import say
from braing3n_core.files import write_atomically
from braing3n_core.settings import Settings
from client.messages import reply, request_of
from privacy.egress import Egress, Update, purpose_of
from privacy.events import SampledGaussian
from privacy.ledger import Ledger
from server import checkpoint
from server.app import FlowerSites
from server.conduct import Progress, _one_round
from server.coordinator import Coordinator

NUMBERS = 64_000_000                                         # float32: 256 MB
server = ServerApp()
client = ClientApp()


def numbers(who: str) -> np.ndarray:
    """(NUMBERS,) float32, no two pieces alike: Flower sends equal pieces once."""
    return np.random.default_rng(list(who.encode())).standard_normal(NUMBERS, np.float32)


@server.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    settings = Settings.read(context.run_config, str(context.run_id))
    plan, out = settings.plan, settings.out
    sites = FlowerSites(grid, plan.digest, json.loads((out / "sites.json").read_text()))
    run = Coordinator(plan, [numbers("start")])
    _one_round(run, sites, Progress(plan, say))
    report = run.close_round()
    checkpoint.write(out / "checkpoints", plan.digest, run.state)
    found = {"replied": report.replied, "refused": dict(report.refused), "numbers": report.numbers, "spent": run.spent}
    write_atomically(out / "run.json", json.dumps({"exit_code": 0, **found}).encode())


@client.train("round")  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """An update as long as what came; south's has one number more than it was asked for."""
    site = str(message.content.config_records["request"]["site"])
    request = request_of(message)
    values = np.append(numbers(site), np.float32(1)) if site == "south" else numbers(site)
    with tempfile.TemporaryDirectory() as scratch, Ledger(Path(scratch) / "ledger.jsonl", 1e-4) as ledger:
        event = SampledGaussian(request.stage, 5.0, 0.5, 2)
        paid = ledger.reserve(event, purpose_of(request.plan, request.stage, request.round), 8.0)
        egress = Egress(ledger, Path(scratch) / "audit.jsonl", site)
        update = Update(site, request.plan, request.stage, request.round, request.digest, paid, values)
        return reply(message, [egress.send(update, len(values))])
