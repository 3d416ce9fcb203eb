"""One message from a server, one reply: what the gate and the site have to say to it."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Context, Message

from client.enrolled import enrolled
from client.gate import Asked, admit
from client.messages import reply, request_of
from client.refusal import refuse
from client.site import Site
from client.site_file import SiteFile
from privacy.egress import Cleared


def answered(site: SiteFile, message: Message, context: Context, bundle: bytes, key: Path) -> Message:
    """The reply to `message`, which came with `bundle`. Always a message of the egress, never an exception or its text.

    `key` is where the site's private key is, unlocked: it signs fresh keys for secure sums (client/enrolled.py).
    """
    return reply(message, [_cleared(site, message, context, bundle, key)])


def _cleared(site: SiteFile, message: Message, context: Context, bundle: bytes, key: Path) -> Cleared:
    try:
        return _worked_on(site, message, context, bundle, key)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong, only a fixed code may leave
        return refuse(site.name, site.folder, error)


def _worked_on(site: SiteFile, message: Message, context: Context, bundle: bytes, key: Path) -> Cleared:
    request = message.content.config_records.get("request", {})
    meant = str(request["site"]) if "site" in request else None
    asked = Asked(message.metadata.message_type, str(request.get("plan", "")), meant, bundle, context.run_config)
    agreement = admit(site, asked)
    allowed, keys = site.policy, enrolled(site, agreement, key)
    here = Site(
        site.name, agreement.plan, site.folder, site.data, allowed.epsilon, fallback=allowed.fallback, enrolled=keys
    )
    answer = here.ready() if asked.kind == "query.ready" else here.round(request_of(message))
    if not isinstance(answer, Cleared):                      # Flower's node waits for ever for a reply that is none
        raise TypeError("the site answered with what the egress did not clear; this must not be")
    return answer
