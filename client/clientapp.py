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

from client.site_file import SiteFile
from privacy.heap import keep_freed_memory

_pull = flower.pull_task_input


def main(folder: str, key: str) -> NoReturn:
    """Answer one message for the site in `folder`, as flower-superexec asked in this process's arguments.

    `key` is the path at which `braing3n-site join` holds the site's private key in memory.
    """
    keep_freed_memory()
    site = SiteFile.load(Path(folder))
    bundles: list[bytes] = []

    def pulled(client: object) -> tuple[Message, Context, object, object]:
        message, context, run, fab = _pull(client)
        bundles.append(fab.content)
        return message, context, run, fab

    def answered(message: Message, context: Context) -> Message:
        # Flower gives a task up that is silent for a minute: its heartbeat has to beat before torch is loaded.
        from client.answer import answered  # noqa: PLC0415

        return answered(site, message, context, bundles[-1], Path(key))

    def redacted(code: int, reason: str) -> Error:
        from client.refusal import note  # noqa: PLC0415 - as above

        note(site.folder, reason)
        return Error(code=code, reason="the node failed; its own log says why")

    flower.pull_task_input, flower.Error = pulled, redacted
    flower.get_load_client_app_fn = lambda **_: lambda *_: answered
    flower.install_from_fab = lambda *_, **__: None          # nothing that a server ships lands on this disk
    flwr_clientapp()
    sys.exit(0)
