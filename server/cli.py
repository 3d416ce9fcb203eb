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


def main() -> NoReturn:
    """The command's entry point."""
    command.run(app, "braing3n-admin")
