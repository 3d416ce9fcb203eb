"""`braing3n-admin`: what a consortium does. Handlers are a few lines; what a command does is in a module of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from braing3n_core import command, console
from braing3n_core.command import EXIT_CODES

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=f"A consortium's side. {EXIT_CODES}"
)
plan = typer.Typer(no_args_is_help=True, help="The document that sites approve.")
app.add_typer(plan, name="plan")
release = typer.Typer(no_args_is_help=True, help="The synthetic cohort that is given away.")
app.add_typer(release, name="release")
_Key = Annotated[Path, typer.Option(help="The release key, PEM on P-256, readable by its owner alone.")]
_Passphrase = Annotated[Path | None, typer.Option(help="File whose first line is the key's passphrase.")]


Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Folder = Annotated[Path, typer.Option("--consortium", help="The consortium's folder.")]
Passphrase = Annotated[Path | None, typer.Option("--passphrase-file", help="Its first line opens the consortium's key.")]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder for the consortium's key, roster, plans and runs.")],
    passphrase_file: Passphrase = None,
    as_json: Json = False,
) -> None:
    """Begin a consortium: make its key and an empty roster."""
    from braing3n_core.passphrase import from_file
    from server.consortium import Consortium

    made = Consortium.make(folder, from_file(passphrase_file) if passphrase_file else None)
    public, name = made.admin_key.with_name("admin.pem.pub"), made.admin.fingerprint
    said = f"key {name}\nsend {public} to every hospital, and tell them the digits by telephone"
    console.show(json.dumps({"key": name, "public": str(public)}) if as_json else said)


@app.command()
def enrol(
    site: Annotated[str, typer.Argument(help="The hospital's name, as plans will call it.")],
    key: Annotated[Path, typer.Argument(help="Its public key, as it sent it.")],
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Take a hospital in: from then on its key may join and plans may name it."""
    from privacy.signing import PublicKey
    from server.consortium import Consortium

    consortium, given = Consortium.open(folder), PublicKey.load(key)
    consortium.write_roster(consortium.roster().enrolled(site, given))
    said = f"{site} is enrolled, key {given.fingerprint}\nask {site} by telephone whether these are its digits"
    console.show(json.dumps({"site": site, "key": given.fingerprint}) if as_json else said)


@app.command()
def remove(
    site: Annotated[str, typer.Argument(help="The hospital's name.")], folder: Folder = Path(), as_json: Json = False
) -> None:
    """Take a hospital out, or make room for its new key. Plans that name it have to be signed again."""
    from server.consortium import Consortium

    consortium = Consortium.open(folder)
    consortium.write_roster(consortium.roster().without(site))
    console.show(json.dumps({"removed": site}) if as_json else f"{site} is out; `serve` lets its node go; sign its plans again")


@app.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="The consortium's folder.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "0.0.0.0",  # noqa: S104 - hospitals come from outside
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8443,
    make_test_certificates: Annotated[str, typer.Option(help="This server's name: make a CA and a certificate for it.")] = "",
) -> None:
    """Keep the consortium's server running: hospitals with enrolled keys may join, through the fleet paths alone."""
    from server.certificates import make_test_certificates as make
    from server.consortium import Consortium
    from server.serve import serve

    consortium = Consortium.open(folder)
    if make_test_certificates:
        make(consortium.tls, make_test_certificates)
    serve(consortium, host, port, console.note)


@app.command()
def start(
    file: Annotated[Path, typer.Argument(help="A signed plan.")], folder: Folder = Path(), as_json: Json = False
) -> None:
    """Run a signed plan to its release, from where it stands; ends with the run's true exit code."""
    from server.consortium import Consortium
    from server.start import start_run

    consortium = Consortium.open(folder)
    code, out = start_run(consortium, file, console.note)
    console.show(json.dumps({"run": str(out), "exit_code": code}) if as_json else str(out))
    if code:
        raise typer.Exit(code)


@app.command()
def status(
    folder: Folder = Path(),
    watch: Annotated[bool, typer.Option("--watch", help="Again every five seconds, the page too.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Write status.html, which reloads itself, and name it.")] = False,
    as_json: Json = False,
) -> None:
    """Where every run stands: stage, round, sites, budgets, time left. Reads; changes nothing but the page."""
    from server import status as told
    from server.consortium import Consortium

    consortium = Consortium.open(folder)
    if watch:
        told.watch(consortium, console.show)
    if html:
        console.show(str(told.write_page(consortium)))
        return
    found = told.status(consortium)
    console.show(found.as_json() if as_json else "\n".join(told.in_words(found)))


@plan.callback()
def plans() -> None:
    """Keep sub-commands even while there is one."""


@plan.command()
def new(
    file: Annotated[Path, typer.Argument(help="File to write.")],
    study: Annotated[str, typer.Option(help="A short name, lower-case letters, digits and dashes.")],
    site: Annotated[list[str], typer.Option(help="NAME=PATIENTS that it declares; once per hospital.")],
    as_json: Json = False,
) -> None:
    """Write a plan to start from, every line explained."""
    from server.plans import declared
    from server.plans import new as write

    made = write(file, study, [declared(word) for word in site])
    facts = {"plan": str(file), "digest": made.digest}
    console.show(json.dumps(facts) if as_json else f"{file}: edit it, then check and sign it")


@plan.command()
def sign(
    file: Annotated[Path, typer.Argument(help="A plan as TOML.")],
    folder: Folder = Path(),
    passphrase_file: Passphrase = None,
    as_json: Json = False,
) -> None:
    """Sign a plan with the consortium's key and the keys of its sites: the file that hospitals review."""
    from braing3n_core.passphrase import passphrase_for
    from server.consortium import Consortium
    from server.plans import sign as signed

    consortium = Consortium.open(folder)
    agreement, path = signed(consortium, file, passphrase_for(consortium.admin_key, passphrase_file))
    facts = {"signed": str(path), "plan": agreement.plan.digest, "bundle": agreement.bundle, "version": agreement.version}
    console.show(json.dumps(facts) if as_json else f"plan {agreement.plan.digest}\nsend {path} to every hospital")


@plan.command()
def check(
    file: Annotated[Path, typer.Argument(help="A plan as TOML.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Whether a plan holds together, what it will cost each patient, and how loud its noise will be."""
    from server.plan_check import checked, in_words

    report = checked(file)
    console.show(report.as_json() if as_json else "\n".join(in_words(report)))


_Policy = Annotated[Path | None, typer.Option(help="A policy as TOML; none for the one that ships.")]


@release.command()
def generate(
    run: Annotated[Path, typer.Argument(help="Output folder of a finished run.")],
    policy: _Policy = None,
    census: Annotated[list[Path] | None, typer.Option(help="A site's census, where a release follows it; each once.")] = None,
) -> None:
    """Make the candidates that the sites vote on, and print their folder. A stopped call goes on where it was."""
    from server.release.policy import DEFAULT, Policy
    from server.release.stages import generate_candidates

    console.show(str(generate_candidates(run, Policy.load(policy or DEFAULT), console.note, census=census or [])))


_Run = Annotated[Path, typer.Argument(help="The run whose candidates were generated.")]
_Votes = Annotated[list[Path] | None, typer.Option(help="A site's vote; once per site.")]
_Ledgers = Annotated[list[Path] | None, typer.Option(help="A site's signed ledger; once per site.")]


@release.command()
def gate(run: _Run, vote: _Votes = None, ledger: _Ledgers = None, policy: _Policy = None) -> None:
    """Hold the candidates to the gates: which is open, which closed, by how much, what to do. A closed gate is exit 4."""
    from server.release.policy import DEFAULT, Policy
    from server.release.stages import gate as judged

    console.show(judged(run, Policy.load(policy or DEFAULT), vote or [], ledger or []).in_words())


@release.command()
def build(
    run: _Run,
    vote: _Votes = None,
    ledger: _Ledgers = None,
    policy: _Policy = None,
    bids_type: Annotated[str, typer.Option(help="derivative, or raw for tools that read nothing else.")] = "derivative",
    with_generator: Annotated[bool, typer.Option("--with-generator", help="Give the trained networks away as well.")] = False,
) -> None:
    """Hold the candidates to the gates and write the release. A closed gate is exit 4, and nothing is written."""
    from server.release.policy import DEFAULT, Policy
    from server.release.stages import bids_type_of
    from server.release.stages import build as build_release

    rules, kind = Policy.load(policy or DEFAULT), bids_type_of(bids_type)
    console.show(str(build_release(run, rules, None, vote or [], ledger or [], kind=kind, with_generator=with_generator)))


@release.command(name="sign")
def sign_release(
    folder: Annotated[Path, typer.Argument(help="A finished release.")],
    key: _Key,
    approval: Annotated[list[Path] | None, typer.Option(help="A site's signed approval; once per site.")] = None,
    passphrase_file: _Passphrase = None,
) -> None:
    """Write attestations, SHA256SUMS and model.sig. Refused unless every gate is open and every site approved."""
    from server.release.commands import sign_release

    console.show(sign_release(folder, key, approval or [], passphrase_file))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A signed release.")],
    key: Annotated[Path, typer.Option(help="The publisher's public key, got by another road than the release.")],
    revocations: Annotated[Path | None, typer.Option(help="The publisher's list of withdrawn releases.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check a release, step by step, offline; exit 6 names the step that fails."""
    from server.release.commands import verify_release

    verdict = verify_release(folder, key, revocations)
    console.show(verdict.as_json() if as_json else verdict.in_words())


@app.command()
def revoke(
    folder: Annotated[Path, typer.Argument(help="The release to withdraw.")],
    key: _Key,
    reason: Annotated[str, typer.Option(help="What recipients should know.")],
    notices: Annotated[Path, typer.Option(help="The list to append to; recipients pass it to verify.")],
    passphrase_file: _Passphrase = None,
) -> None:
    """Withdraw a release by a signed notice."""
    from server.release.commands import revoke_release

    console.show(revoke_release(folder, key, reason, notices, passphrase_file))


def main() -> NoReturn:
    """The command's entry point."""
    command.run(app, "braing3n-admin")
