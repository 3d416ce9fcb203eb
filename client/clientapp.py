"""The hospital's own `flwr-clientapp`: first on the PATH of the node that `braing3n-site join` starts.

Flower's SuperExec starts a program of that name for every message. This one is Flower's, except that the app bundle is
neither unpacked nor imported, the gate comes first, the installed packages answer, and no exception's text leaves.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn

import flwr.supernode.runtime.run_clientapp as flower
from flwr.app import Context, Error, Message
from flwr.supernode.cli import flwr_clientapp

from client.app import reply, request_of
from client.gate import Asked, admit
from client.refusal import note, refuse
from client.site import Site
from client.site_file import SiteFile
from privacy.egress import Cleared

_pull = flower.pull_task_input


def main(folder: str) -> NoReturn:
    """Answer one message for the site in `folder`, as flower-superexec asked in this process's arguments."""
    site = SiteFile.load(Path(folder))
    bundles: list[bytes] = []

    def pulled(client: object) -> tuple[Message, Context, object, object]:
        message, context, run, fab = _pull(client)
        bundles.append(fab.content)
        return message, context, run, fab

    def loaded(**_: object) -> object:
        return lambda *_: lambda message, context: answered(site, message, context, bundles[-1])

    def redacted(code: int, reason: str) -> Error:
        note(site.folder, reason)
        return Error(code=code, reason="the node failed; its own log says why")

    flower.pull_task_input, flower.get_load_client_app_fn, flower.Error = pulled, loaded, redacted
    flower.install_from_fab = lambda *_, **__: None          # nothing that a server ships lands on this disk
    flwr_clientapp()
    sys.exit(0)


def answered(site: SiteFile, message: Message, context: Context, bundle: bytes) -> Message:
    """The one reply to one message: what the gate and the site have to say. Always a message, never an exception's text."""
    return reply(message, [_cleared(site, message, context, bundle)])


def _cleared(site: SiteFile, message: Message, context: Context, bundle: bytes) -> Cleared:
    try:
        return _worked_on(site, message, context, bundle)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, only a fixed code may leave
        return refuse(site.name, site.folder, error)


def _worked_on(site: SiteFile, message: Message, context: Context, bundle: bytes) -> Cleared:
    request = message.content.config_records.get("request", {})
    meant = str(request["site"]) if "site" in request else None
    asked = Asked(message.metadata.message_type, str(request.get("plan", "")), meant, bundle, context.run_config)
    plan = admit(site, asked).plan
    here = Site(site.name, plan, site.folder, site.data, site.policy.epsilon)
    answer = here.ready() if asked.kind == "query.ready" else here.round(request_of(message))
    if not isinstance(answer, Cleared):                      # Flower's node waits for ever for a reply that is none
        raise TypeError("the site answered with what the egress did not clear; this must not be")
    return answer
