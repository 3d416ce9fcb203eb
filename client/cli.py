"""`braing3n-site`: what a hospital's operator does. Handlers are a few lines; what a command does is in a module of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from braing3n_core import command, console
from braing3n_core.command import EXIT_CODES
from braing3n_core.errors import REFUSED, UsageError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=f"One hospital's side. {EXIT_CODES}"
)


@app.callback()
def site() -> None:
    """Keep sub-commands even while there is one."""


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The site's folder; made if it is not there.")],
    name: Annotated[str, typer.Option(help="What the consortium calls this hospital, for example north.")],
    data: Annotated[Path | None, typer.Option(help="BIDS folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Make a site's folder: settings to fill in, and a key that only its owner can read."""
    from client.init import init

    settings, fingerprint = init(folder, name, data)
    made = {"settings": str(settings), "fingerprint": fingerprint}
    console.show(json.dumps(made) if as_json else f"edit {settings}\nthe key's fingerprint is {fingerprint}")


@app.command()
def doctor(
    folder: Annotated[Path, typer.Option("--site", help="The site's folder: it holds site.toml.")] = Path(),
    data: Annotated[Path | None, typer.Option(help="BIDS folder, if not the one site.toml names.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A plan, to hold tables and cohort against.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say whether this hospital can take part, and how to fix what is in the way. 3 if something will not work."""
    from dataclasses import asdict

    from braing3n_core.plan import TrainingPlan
    from client.doctor import examine
    from client.findings import table

    found = examine(folder, data, TrainingPlan.load(plan) if plan else None)
    console.show(json.dumps([asdict(one) for one in found]) if as_json else table(found))
    if any(one.state == "refused" for one in found):
        raise typer.Exit(REFUSED)


@app.command()
def prepare(
    data: Annotated[Path, typer.Option(help="BIDS folder, or the folder that --table's files are relative to.")],
    out: Annotated[Path, typer.Option(help="Folder for tables, pages and cache; a site's own folder is a good place.")],
    preset: Annotated[str, typer.Option(help="Grid: tiny (4 mm), small (2 mm) or another of the models'.")] = "small",
    table: Annotated[Path | None, typer.Option(help="CSV or TSV that names the scans, in place of BIDS names.")] = None,
    columns: Annotated[str, typer.Option(help="With --table: file=COLUMN,participant=COLUMN[,session=..][,modality=..]")] = "",
    n4: Annotated[bool, typer.Option("--n4", help="Also take out the coil's field (N4).")] = False,
    brain_mask_command: Annotated[str, typer.Option(help="Own tool, e.g. 'hd-bet -i {scan} -o {mask}'; no shell.")] = "",
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one for each core.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Bring every scan to the grid, measure it, and write pages to look at. A second run costs nothing."""
    from braing3n_core.data.mask_command import words_of
    from braing3n_core.data.scans import columns_of, find_bids, find_listed
    from client.prepare import Options, prepare

    if brain_mask_command:
        words_of(brain_mask_command)
    if (table is None) != (not columns):
        raise UsageError("--table and --columns go together; give both or neither")
    found = find_listed(data, table, columns_of(columns)) if table else find_bids(data)
    done = prepare(found, out, Options(preset, n4, brain_mask_command, jobs), console.timed("scans"))
    console.show(json.dumps(done.as_json()) if as_json else done.in_words())


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
