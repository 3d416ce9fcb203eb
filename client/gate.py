"""The gate of a hospital's node: what a server asks is held against what the hospital approved, before anything is worked on.

Rules, in this order; the first that fails refuses the request
 1. It is one of the two kinds of request there are.
 2. The app bundle that came with it holds no code.
 3. Its run configuration overrides nothing that decides privacy. Overrides are not part of a bundle's digest.
 4. It names a plan that the consortium signed, this site approved, and its policy of today allows (client/approvals.py).
 5. The bundle is the one that was approved with the plan, and the installed version too.
 6. A round is meant for this site.

No code of a server is ever run: the answer is worked out by the installed packages, whatever the bundle names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from braing3n_core.agreement import Agreement
from braing3n_core.bundle import refuse_code
from braing3n_core.errors import PlanRefused
from braing3n_core.settings import DEFAULTS, OWN
from client.approvals import approved, refuse_other_code
from client.site_file import SiteFile

KINDS = ("query.ready", "train.round")
PINNED: dict[str, str | int | float] = {                     # what a run may not set at a hospital
    **{key: DEFAULTS[key] for key in ("epsilon", "rounds", "patients", "seed")},
    "data": OWN,
}
_SERVERS = frozenset({"plan", "out-dir"})                    # paths at the server, read by nobody here


@dataclass(frozen=True)
class Asked:
    """What came from the server, as far as the gate looks at it."""

    kind: str
    plan: str                                                # digest
    site: str | None                                         # whom it is for; None in a roll call
    bundle: bytes
    config: Mapping[str, object]


def admit(site: SiteFile, asked: Asked) -> Agreement:
    """The agreement under which `asked` may be worked on. Raises the refusal of the first rule that fails."""
    if asked.kind not in KINDS:
        raise PlanRefused("the request is of a kind this site does not know; the sender runs another version")
    refuse_code(asked.bundle)
    _refuse_overrides(asked.config)
    agreement = approved(site, asked.plan)
    refuse_other_code(agreement, hashlib.sha256(asked.bundle).hexdigest())
    if asked.kind == "train.round" and asked.site != site.name:
        raise PlanRefused("the request is meant for another site; the consortium's roster and node keys do not fit")
    return agreement


def _refuse_overrides(config: Mapping[str, object]) -> None:
    for key, value in config.items():
        pinned = key in PINNED and type(value) is type(PINNED[key]) and value == PINNED[key]
        if not (pinned or key in _SERVERS):
            raise PlanRefused(f"the run sets {key} in place of the plan; the consortium must start it with `start` alone")
