"""The site's side of Flower in simulation. What a site does is in site.py."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from braing3n_core.data.hospital import write_hospital
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import Settings
from client.enrolled import phantoms
from client.messages import reply, request_of
from client.refusal import refuse
from client.site import Site
from privacy.egress import Cleared

app = ClientApp()
_NO_ANSWER = Error(code=2, reason="the node could not read its settings; its own log says why")


@app.query("ready")  # type: ignore[untyped-decorator]  # Flower is skipped by mypy
def ready(message: Message, context: Context) -> Message:
    """Whether each site this node plays can take part."""
    try:
        settings = _settings(context)
        return reply(message, [_asked(settings, name, None) for name in _played(settings, context)])
    except Exception:  # noqa: BLE001 - the words of an error may name a patient or a path; only a fixed text leaves
        return Message(_NO_ANSWER, reply_to=message)


@app.train("round")  # type: ignore[untyped-decorator]  # as above
def train(message: Message, context: Context) -> Message:
    """One round at the site the request names."""
    try:
        settings = _settings(context)
        name = str(message.content.config_records["request"]["site"])
        if name not in _played(settings, context):
            return Message(_NO_ANSWER, reply_to=message)
        return reply(message, [_asked(settings, name, message)])
    except Exception:  # noqa: BLE001 - as above
        return Message(_NO_ANSWER, reply_to=message)


def _asked(settings: Settings, name: str, message: Message | None) -> Cleared:
    """The site's answer to a round, or to being asked whether it is ready. Any error becomes a refusal through the egress."""
    try:
        if settings.plan.rehearsal is not None:
            write_hospital(settings.bids(name), settings.plan.site(name), settings.plan)
        site = _site(settings, name)
        return site.ready() if message is None else site.round(request_of(message))
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, only a fixed code may leave
        return refuse(name, settings.folder(name), error)


def _settings(context: Context) -> Settings:
    return Settings.read(context.run_config, str(context.run_id))


def _played(settings: Settings, context: Context) -> list[str]:
    """The sites that a simulated node plays: every n-th of the plan. A real one answers through client/clientapp.py."""
    part, parts = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    return [site.name for index, site in enumerate(settings.plan.sites) if index % parts == part]


def _site(settings: Settings, name: str) -> Site:
    folders = tuple((site.name, settings.folder(site.name)) for site in settings.plan.sites)
    return _played_here(settings.plan.canonical(), name, folders, settings.bids(name))


@cache
def _played_here(plan: str, name: str, folders: tuple[tuple[str, Path], ...], bids: Path) -> Site:
    """A worker process keeps the sites it played, so that scans are read once; their ledgers are free between requests."""
    return Site(name, TrainingPlan.from_json(plan), dict(folders)[name], bids, enrolled=phantoms(dict(folders), name))
