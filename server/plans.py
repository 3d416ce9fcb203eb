"""From a question to a signed plan: a file to start from, and the consortium's signature under what it became."""

from __future__ import annotations

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from braing3n_core.agreement import Agreement, read_envelope, write_envelope
from braing3n_core.bundle import installed_digest
from braing3n_core.errors import PlanRefused, UsageError
from braing3n_core.files import write_atomically
from braing3n_core.plan import TrainingPlan
from privacy.signing import SigningKey
from server.consortium import Consortium


def new(path: Path, study: str, sites: list[tuple[str, int]]) -> TrainingPlan:
    """Write a plan to start from, with these hospitals and the patients each declares. Never replaces a file."""
    rows = ",\n".join(f'  {{ name = "{name}", patients = {patients} }}' for name, patients in sites)
    text = files("server").joinpath("plan.toml").read_text(encoding="utf-8")
    text = text.replace("@STUDY@", study).replace("@SITES@", f"[\n{rows},\n]").replace("@QUORUM@", str(len(sites) // 2 + 1))
    keep(path, text)
    try:
        return TrainingPlan.load(path)
    except PlanRefused:
        path.unlink()
        raise


def keep(path: Path, text: str) -> None:
    """Write a plan's text. Raises UsageError rather than replace a file."""
    if path.exists():
        raise UsageError(f"{path} is there already; name another file")
    write_atomically(path, text.encode())


def declared(word: str) -> tuple[str, int]:
    """NAME=PATIENTS as a pair. Raises UsageError."""
    name, equals, patients = word.partition("=")
    if not (name and equals and patients.isascii() and patients.isdigit()):
        raise UsageError(f"--site {word}: write NAME=PATIENTS, for example north=120")
    return name, int(patients)


def sign(consortium: Consortium, path: Path, passphrase: bytes | None = None) -> tuple[Agreement, Path]:
    """Sign the plan in `path` with the enrolled keys of its sites; returns the agreement and its file."""
    plan, enrolled = TrainingPlan.load(path), consortium.roster().keys
    if missing := [site.name for site in plan.sites if site.name not in enrolled]:
        raise PlanRefused(f"{', '.join(missing)} not enrolled; first: braing3n-admin enrol {missing[0]} KEY")
    if plan.rehearsal is not None:
        raise PlanRefused("a rehearsal is never signed; remove [rehearsal] and name the real sites")
    agreement = Agreement(
        plan=plan,
        bundle=installed_digest(),
        version=version("braing3n"),
        keys={site.name: enrolled[site.name] for site in plan.sites},
    )
    target = consortium.folder / "plans" / f"{plan.study}.signed.json"
    write_envelope(target, agreement.signed(SigningKey.load(consortium.admin_key, passphrase)))
    return agreement, target


def signed(consortium: Consortium, path: Path) -> Agreement:
    """The agreement in a signed plan's file, once this consortium's own signature and today's roster are found to fit it."""
    agreement = Agreement.opened(read_envelope(path), consortium.admin)
    enrolled = consortium.roster().keys
    if changed := [site for site, pem in agreement.keys.items() if enrolled.get(site) != pem]:
        raise PlanRefused(f"{', '.join(changed)} left the consortium or has a new key since; sign the plan again")
    return agreement
