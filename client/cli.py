"""`braing3n-site`: what a hospital's operator does. Handlers are a few lines; what a command does is in a module of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NoReturn

import typer

from braing3n_core import command, console
from braing3n_core.command import EXIT_CODES

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=f"One hospital's side. {EXIT_CODES}"
)


@app.callback()
def site() -> None:
    """Keep sub-commands even while there is one."""


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


@app.command()
def embed(
    data: Annotated[Path, typer.Option(help="BIDS folder with T1w scans, skull-stripped.")],
    out: Annotated[Path, typer.Option(help="TSV to write: one row a scan. It is patient data; keep it here.")],
    weights: Annotated[Path | None, typer.Option(help="A prior with its record beside it; none: the one that ships.")] = None,
    pool: Annotated[str, typer.Option(help="mean (one vector), regions (27 boxes) or none (every token).")] = "mean",
    registration: Annotated[str, typer.Option(help="affine, or none for scans on the grid already.")] = "affine",
) -> None:
    """Turn scans into features for this hospital's own prediction tasks. Nothing is sent anywhere."""
    from client.embed import chosen, write_embeddings

    written, left_out = write_embeddings(data, out, *chosen(weights, pool, registration), console.note)
    console.show(f"{out}: {written} scans, {left_out} left out")


def main() -> NoReturn:
    """The command's entry point."""
    command.run(app, "braing3n-site")
