"""`braing3n-site`: what a hospital's operator does. Handlers are a few lines; what a command does is in a module of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from braing3n_core import command, console
from braing3n_core.command import EXIT_CODES
from braing3n_core.errors import REFUSED

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=f"One hospital's side. {EXIT_CODES}"
)


@app.callback()
def site() -> None:
    """Keep sub-commands even while there is one."""


Folder = Annotated[Path, typer.Option("--site", help="The site's folder: it holds site.toml.")]
Plan = Annotated[Path, typer.Argument(help="A signed plan, as the consortium sent it.")]
Json = Annotated[bool, typer.Option("--json", help="For programs.")]
Passphrase = Annotated[Path | None, typer.Option("--passphrase-file", help="Its first line opens the site's key.")]


@app.command()
def review(plan: Plan, folder: Folder = Path(), as_json: Json = False) -> None:
    """What joining a plan would send, cost and require, in words. Changes nothing; 3 if this hospital forbids it."""
    from client.review import in_words, review
    from client.site_file import SiteFile

    found = review(SiteFile.load(folder), plan)
    console.show(found.as_json() if as_json else "\n".join(in_words(found)))
    if found.objections:
        raise typer.Exit(REFUSED)


@app.command()
def approve(plan: Plan, folder: Folder = Path(), passphrase_file: Passphrase = None, as_json: Json = False) -> None:
    """Sign a plan with this hospital's key: from then on its rounds are worked on, within the policy."""
    from client.approvals import approve_installed
    from client.site_file import SiteFile

    made = approve_installed(SiteFile.load(folder), plan, passphrase_file)
    console.show(json.dumps({"approval": str(made)}) if as_json else f"approved; the consortium may have {made}")


@app.command()
def join(folder: Folder = Path(), passphrase_file: Passphrase = None) -> None:
    """Take part: keep this hospital's node running, behind its own gate, until it is told to stop."""
    from client.join import join
    from client.site_file import SiteFile

    join(SiteFile.load(folder), passphrase_file, console.note)


@app.command()
def status(folder: Folder = Path(), as_json: Json = False) -> None:
    """What this hospital agreed to, what was spent, and what last left. Reads; changes nothing."""
    from client.site_file import SiteFile
    from client.status import in_words, status

    found = status(SiteFile.load(folder))
    console.show(found.as_json() if as_json else "\n".join(in_words(found)))


@app.command()
def ledger(
    folder: Annotated[Path, typer.Argument(help="The site's folder: it holds ledger.jsonl and audit.jsonl.")],
    verify: Annotated[bool, typer.Option("--verify", help="Also hold the ledger against the audit log.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """What was spent on this site's patients, in words. Reads; changes nothing."""
    from client.statement import in_words, read_statement

    statement = read_statement(folder, verify=verify)
    console.show(statement.as_json() if as_json else "\n".join(in_words(statement)))


def main() -> NoReturn:
    """The command's entry point."""
    command.run(app, "braing3n-site")
