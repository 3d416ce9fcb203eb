"""`braing3n-admin`: what a consortium does. Handlers are a few lines; what a command does is in a module of its own."""

from __future__ import annotations

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


@plan.callback()
def plans() -> None:
    """Keep sub-commands even while there is one."""


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
    run: Annotated[Path, typer.Argument(help="Output folder of a finished run.")], policy: _Policy = None
) -> None:
    """Make the candidates that the sites vote on, and print their folder. A stopped call goes on where it was."""
    from server.release.policy import DEFAULT, Policy
    from server.release.stages import generate_candidates

    console.show(str(generate_candidates(run, Policy.load(policy or DEFAULT), console.note)))


@release.command()
def build(
    run: Annotated[Path, typer.Argument(help="The run whose candidates were generated.")],
    vote: Annotated[list[Path] | None, typer.Option(help="A site's vote; once per site.")] = None,
    ledger: Annotated[list[Path] | None, typer.Option(help="A site's signed ledger; once per site.")] = None,
    policy: _Policy = None,
    bids_type: Annotated[str, typer.Option(help="derivative, or raw for tools that read nothing else.")] = "derivative",
) -> None:
    """Hold the candidates to the gates and write the release. A closed gate is exit 4, and nothing is written."""
    from server.release.policy import DEFAULT, Policy
    from server.release.stages import bids_type_of
    from server.release.stages import build as build_release

    rules, kind = Policy.load(policy or DEFAULT), bids_type_of(bids_type)
    console.show(str(build_release(run, rules, None, vote or [], ledger or [], kind=kind)))


@release.command()
def sign(
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
