"""What a site is asked around a release, as files: a vote, its signed ledger, its approval."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from braing3n_core.candidate_files import read_candidates
from braing3n_core.errors import Braing3nError, GateBlocked, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.manifest import content, digests_of, root
from client.approvals import approved, read_agreement
from client.attest import Check, approve, ledger_statement
from client.rating import OutputCheck
from client.site import Site
from client.site_file import SiteFile
from client.vote import Ballot
from privacy.signing import SigningKey


def vote(site: SiteFile, plan: Path, candidates: Path, round_: int, out: Path) -> None:
    """`cast_vote` under an approved plan, within the policy's limit. Raises PlanRefused if it is not approved here."""
    cast_vote(_under(site, plan), candidates, round_, out)


def cast_vote(site: Site, candidates: Path, round_: int, out: Path) -> None:
    """Vote on the candidates in a folder and write the noisy bits. Raises GateBlocked, with the code, if the site refuses."""
    asked = read_candidates(candidates)
    header = dict(site.vote(Ballot(asked.plan, round_, asked.volumes, asked.threshold)).header)
    if header.get("kind") != "vote":
        raise GateBlocked(f"no vote was cast: {header.get('code')}; {site.folder / 'site.log'} says why")
    _write(out, header)


def tell_census(site: SiteFile, plan: Path, out: Path) -> None:
    """Write this site's noisy census of an approved plan. Raises GateBlocked, with the code, if the site refuses."""
    header = dict(_under(site, plan).census().header)
    if header.get("kind") != "census":
        raise GateBlocked(f"no census was told: {header.get('code')}; {site.folder / 'site.log'} says why")
    _write(out, header)


def sign_ledger(site_folder: Path, name: str, plan: str, key: SigningKey, out: Path) -> None:
    """Write this site's whole ledger, signed, with the public key that opens it."""
    envelope = ledger_statement(site_folder, name, plan, key)
    _write(out, {"site": name, "public_key": key.public.pem.decode("ascii"), "ledger": dict(envelope)})


def check_of(release: Path, form: Path | None, role: str, looked_at: int, rating: str, comment: str) -> Check:
    """What somebody found, from the form that `look` wrote or in words. Raises UsageError for both or for half of the words."""
    if form is not None:
        if role or looked_at or rating or comment:
            raise UsageError("the form says who looked and what they found; give --check, or --role, --looked-at and --rating")
        return OutputCheck.read(form).as_check(root(content(digests_of(release))))
    if not (role and rating):
        raise UsageError("nobody is said to have looked; give --check FILE, or --role, --looked-at and --rating")
    return Check(role, looked_at, rating, comment)


def approve_release(
    release: Path, site_folder: Path, name: str, key: SigningKey, check: Check, out: Path, with_generator: bool = False
) -> None:
    """Write this site's approval of a finished folder. Refused unless somebody looked at it and found it acceptable."""
    if not (check.looked_at > 0 and check.rating == "acceptable"):
        raise Braing3nError(
            f"only what somebody looked at and rates acceptable is approved, not {check.rating!r}; look at the images first"
        )
    _write(out, approve(release, site_folder, name, key, check, with_generator))


def _under(site: SiteFile, plan: Path) -> Site:
    """The site under a plan that it approved, which may spend no more than its own policy allows."""
    agreed = approved(site, read_agreement(site, plan).plan.digest).plan
    return Site(site.name, agreed, site.folder, site.data, site.policy.epsilon)


def _write(out: Path, document: Mapping[str, object]) -> None:
    write_atomically(out, (json.dumps(dict(document), sort_keys=True) + "\n").encode())
