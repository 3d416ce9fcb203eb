"""The plans this hospital agreed to: kept in <site>/plans/<plan digest>/, with the consortium's signature and its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from braing3n_core.agreement import Agreement, Approval, read_envelope, write_envelope
from braing3n_core.bundle import installed_digest
from braing3n_core.errors import IntegrityError, PlanRefused
from braing3n_core.passphrase import passphrase_for
from client.site_file import SiteFile
from privacy.signing import PublicKey, SigningKey

_DIGEST = re.compile(r"[0-9a-f]{64}")


def read_agreement(site: SiteFile, path: Path) -> Agreement:
    """The plan in a file, once the consortium's key is found to have signed it and this site's own key to be in it."""
    agreement = Agreement.opened(read_envelope(path), PublicKey.load(site.admin_key))
    if agreement.key(site.name) != own_key(site):
        raise IntegrityError(f"the plan names another key for {site.name} than this site's; send yours to the consortium again")
    return agreement


def approve_installed(site: SiteFile, path: Path, passphrase_file: Path | None) -> Path:
    """`approve` with the key and the code that this machine has."""
    key = SigningKey.load(site.key, passphrase_for(site.key, passphrase_file))
    return approve(site, path, key, installed_digest())


def approve(site: SiteFile, path: Path, key: SigningKey, installed_bundle: str) -> Path:
    """Sign the plan in `path` for this site; returns the approval's file, which the consortium may have.

    Raises PlanRefused if the policy forbids it, IntegrityError if other code than the installed one would run.
    """
    agreement = read_agreement(site, path)
    if key.public != own_key(site):
        raise IntegrityError("this key is not the one the consortium enrolled for this site; name the site's own key")
    refuse(site.policy.objections(agreement.plan, site.name))
    refuse_other_code(agreement, installed_bundle)
    folder = _folder(site, agreement.plan.digest)
    write_envelope(folder / "agreement.json", read_envelope(path))
    approval = Approval.of(site.name, agreement, datetime.now(UTC).isoformat(timespec="seconds"))
    write_envelope(folder / "approval.json", approval.signed(key))
    return folder / "approval.json"


def approved(site: SiteFile, digest: str) -> Agreement:
    """The agreement behind an approved plan's digest.

    Guarantee: the consortium signed it, this site's key approved exactly it, and the policy of today still allows it.
    Checked anew at each call, so a changed file, key or policy ends what was agreed. Raises a refusal that says which.
    """
    if not _DIGEST.fullmatch(digest):
        raise PlanRefused("a plan is named by its digest, 64 hexadecimal digits; the sender runs another version")
    folder = _folder(site, digest)
    if not (folder / "approval.json").exists():
        raise PlanRefused(f"plan {digest[:12]} was not approved here; review it, then: braing3n-site approve")
    agreement = read_agreement(site, folder / "agreement.json")
    approval = Approval.opened(read_envelope(folder / "approval.json"), own_key(site))
    if agreement.plan.digest != digest or not approval.covers(site.name, agreement):
        raise IntegrityError(f"plan {digest[:12]} is not what was approved here; review and approve it again")
    refuse(site.policy.objections(agreement.plan, site.name))
    return agreement


def all_approved(site: SiteFile) -> Iterator[tuple[str, Agreement | Exception]]:
    """Every plan ever approved here by digest, or why it no longer counts."""
    for folder in sorted((site.folder / "plans").glob("*")):
        try:
            yield folder.name, approved(site, folder.name)
        except Exception as error:  # noqa: BLE001 - told to the operator as the state of that plan
            yield folder.name, error


def own_key(site: SiteFile) -> PublicKey:
    """The public half of this site's key."""
    return PublicKey.load(site.key.with_name(f"{site.key.name}.pub"))


def refuse(objections: tuple[str, ...]) -> None:
    """Raise PlanRefused naming every way in which the plan crosses this hospital's policy."""
    if objections:
        raise PlanRefused(f"this hospital's policy forbids the plan: {'; '.join(objections)}; see [policy] in site.toml")


def refuse_other_code(agreement: Agreement, installed_bundle: str) -> None:
    """Raise IntegrityError unless what would run is what is installed here."""
    installed = version("braing3n")
    if agreement.version != installed:
        raise IntegrityError(f"the plan was signed for braing3n {agreement.version}, here is {installed}; install that version")
    if agreement.bundle != installed_bundle:
        raise IntegrityError("the plan was signed for another app bundle than this version makes; it must be signed again")


def _folder(site: SiteFile, digest: str) -> Path:
    return site.folder / "plans" / digest
