"""Plain Flower, to hold a round of ours against: Flower's own FedAvg, and sites that train the same tensors without privacy.

No ledger, no egress, no checkpoint, no quorum. The plan gives patients, stage and steps, so both do the same local work.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from time import monotonic

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from torch import Tensor

from braing3n_core.data.cohort import load_cohort
from braing3n_core.data.hospital import write_hospital
from braing3n_core.files import write_atomically
from braing3n_core.journal import journal
from braing3n_core.models.brain import Brain
from braing3n_core.plan import Stage, TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.protocol import begin_stage
from braing3n_core.settings import Settings
from braing3n_core.training import Prepared, draw_rows, prepare, row_loss
from privacy.dp_sgd import PoissonSampler, trainable
from privacy.randomness import ReplayableNoise

server = ServerApp()
client = ClientApp()


@server.main()  # type: ignore[untyped-decorator]  # Flower is skipped by mypy
def main(grid: Grid, context: Context) -> None:
    """The rounds of the plan's first stage; how long each took is in the run's journal."""
    settings = Settings.read(context.run_config, str(context.run_id))
    plan, last = settings.plan, [monotonic()]

    def closed(number: int, _: ArrayRecord) -> None:
        began, last[0] = last[0], monotonic()
        if number:                                           # it is called before the first round too
            journal(settings.out, "round", {"round": number, "seconds": last[0] - began})

    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=len(plan.sites), min_available_nodes=len(plan.sites))
    arrays = ArrayRecord(torch_state_dict=begin_stage(load_prior(plan), plan, plan.stages[0].name))
    result = strategy.start(grid, arrays, num_rounds=plan.stages[0].rounds, evaluate_fn=closed)
    trained = len(result.train_metrics_clientapp) == plan.stages[0].rounds
    write_atomically(settings.out / "run.json", json.dumps({"exit_code": int(not trained)}).encode())


@client.train()  # type: ignore[untyped-decorator]  # as above
def train(message: Message, context: Context) -> Message:
    """Local steps from the tensors that came, at the site that this node plays; the tensors they led to."""
    settings = Settings.read(context.run_config, str(context.run_id))
    plan, stage = settings.plan, settings.plan.stages[0]
    name = plan.sites[int(context.node_config["partition-id"])].name
    patients = _patients(plan.canonical(), name, settings.bids(name), settings.folder(name) / "cache")
    model = load_prior(plan)
    _put(begin_stage(model, plan, stage.name), message.content["arrays"].to_torch_state_dict())
    began = monotonic()
    _local_steps(model, stage, patients, plan.seed)
    journal(settings.folder(name), "trained", {"seconds": monotonic() - began})
    content = {
        "arrays": ArrayRecord(torch_state_dict=trainable(model)), "metrics": MetricRecord({"num-examples": len(patients)}),
    }  # fmt: skip
    return Message(RecordDict(content), reply_to=message)


@cache
def _patients(plan: str, name: str, bids: Path, kept: Path) -> list[Prepared]:
    """Read once by each worker process, as our sites do."""
    read = TrainingPlan.from_json(plan)
    write_hospital(bids, read.site(name), read)
    model, stage = load_prior(read), read.stages[0].name
    return [prepare(stage, model, one.scans, one.others) for one in load_cohort(bids, read, kept).training]


def _local_steps(model: Brain, stage: Stage, patients: list[Prepared], seed: int) -> None:
    """Plain SGD on patients drawn as a private step draws them."""
    sampler, draws = PoissonSampler[Prepared](stage.sample_rate, ReplayableNoise(seed)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(trainable(model).values(), stage.learning_rate)
    for _ in range(stage.local_steps):
        rows = [draw_rows(stage.name, one.tensors, model, stage.views, draws) for one in sampler.draw(patients)]
        if rows:
            batch = tuple(torch.cat(column) for column in zip(*rows, strict=True))
            row_loss(stage.name)(model, batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)


def _put(tensors: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])
