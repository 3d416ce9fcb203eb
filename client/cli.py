"""`braing3n-site`: what a hospital's operator does. Handlers are a few lines; what a command does is in a module of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from braing3n_core import command, console
from braing3n_core.command import EXIT_CODES
from braing3n_core.errors import INTEGRITY, REFUSED, UsageError

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
    selftest: Annotated[bool, typer.Option("--selftest", help="Only test the code that trains, on made-up patients.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say whether this hospital can take part, and how to fix what is in the way. 3 if not, 6 if the self-test fails."""
    from dataclasses import asdict

    from client.findings import table

    if selftest:
        from client.selftest import selftest as tested

        found = tested()
    else:
        from braing3n_core.plan import TrainingPlan
        from client.doctor import examine

        found = examine(folder, data, TrainingPlan.load(plan) if plan else None)
    console.show(json.dumps([asdict(one) for one in found]) if as_json else table(found))
    if any(one.state == "refused" for one in found):
        raise typer.Exit(INTEGRITY if selftest else REFUSED)


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


_Name = Annotated[str, typer.Option(help="This site's name in the plan.")]
_Folder = Annotated[Path, typer.Option(help="The site's folder: it holds ledger.jsonl.")]
_Key = Annotated[Path, typer.Option(help="The site's private key, PEM on P-256, readable by its owner alone.")]
_Out = Annotated[Path, typer.Option(help="File to write; send it to the consortium.")]
_Plan = Annotated[Path, typer.Option(help="The plan, as TOML or as a run's plan.json.")]


@app.command()
def vote(
    candidates: Annotated[Path, typer.Argument(help="Folder of candidates from the consortium.")],
    plan: Plan,
    out: _Out,
    folder: Folder = Path(),
    number: Annotated[int, typer.Option("--round", min=1, max=2)] = 1,
    as_json: Json = False,
) -> None:
    """Vote, under an approved plan, against candidates too much like a patient: noisy bits, paid for before a scan is read."""
    from client.release import vote as voted
    from client.site_file import SiteFile

    voted(SiteFile.load(folder), plan, candidates, number, out)
    console.show(json.dumps({"vote": str(out)}) if as_json else f"voted: {out}")


@app.command()
def census(
    plan: Plan, out: _Out, folder: Folder = Path(), as_json: Json = False
) -> None:
    """Tell an approved plan's census: noisy counts of patients by age, diagnosis and so on, paid for before one is read."""
    from client.release import tell_census
    from client.site_file import SiteFile

    tell_census(SiteFile.load(folder), plan, out)
    console.show(json.dumps({"census": str(out)}) if as_json else f"census: {out}")


@app.command(name="sign-ledger")
def sign_ledger(plan: _Plan, site_name: _Name, folder: _Folder, key: _Key, out: _Out) -> None:
    """Write the whole ledger, signed, for the certificate of a release."""
    from braing3n_core.settings import read_plan
    from client.release import sign_ledger as signed
    from privacy.signing import SigningKey

    signed(folder, site_name, read_plan(plan).digest, SigningKey.load(key), out)
    console.show(f"signed: {out}")


@app.command(name="approve-release")
def approve_release(
    release: Annotated[Path, typer.Argument(help="The finished release.")],
    site_name: _Name,
    folder: _Folder,
    key: _Key,
    out: _Out,
    check: Annotated[Path | None, typer.Option(help="Ratings saved from `look`'s page, for the next four.")] = None,
    role: Annotated[str, typer.Option(help="Who looked, by role and never by name: it is published.")] = "",
    looked_at: Annotated[int, typer.Option(min=0, help="Images that were looked at.")] = 0,
    rating: Annotated[str, typer.Option(help="acceptable, or why not: then nothing is signed.")] = "",
    comment: Annotated[str, typer.Option(help="Published with the release.")] = "",
    with_generator: Annotated[bool, typer.Option("--with-generator", help="Also that the generator is given away.")] = False,
) -> None:
    """Put the site's name to a release that somebody looked at."""
    from client.release import approve_release as approve
    from client.release import check_of
    from privacy.signing import SigningKey

    found = check_of(release, check, role, looked_at, rating, comment)
    approve(release, folder, site_name, SigningKey.load(key), found, out, with_generator)
    console.show(f"approved: {out}")


@app.command()
def look(
    release: Annotated[Path, typer.Argument(help="The finished release.")],
    site_name: _Name,
    folder: _Folder,
    bids: Annotated[Path, typer.Option(help="The site's scans.")],
    out: Annotated[Path, typer.Option(help="Folder for two pages. One shows patients: it stays here.")],
    images: Annotated[int, typer.Option(min=1, help="Images to rate; a larger release is sampled.")] = 24,
) -> None:
    """Write what a person looks at before a release is approved: a rating form, and each image beside its nearest patient."""
    from client.look import look as written

    console.show("\n".join(str(page) for page in written(release, site_name, folder, bids, out, images, console.note)))


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


@app.command()
def forecast(
    scan: Annotated[Path, typer.Argument(help="One T1w scan, skull-stripped.")],
    years: Annotated[float, typer.Option(help="From the scan on; at most 20.")],
    out: Annotated[Path, typer.Option(help="New folder: both volumes, a picture, numbers. It is patient data; keep it here.")],
    known: Annotated[list[str] | None, typer.Option("--is", help="variable=VALUE at the scan, such as age=71; repeat.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A prior and its trajectory; none: those that ship.")] = None,
    registration: Annotated[str, typer.Option(help="affine, or none for scans on the grid already.")] = "affine",
) -> None:
    """What a person's follow-up is expected to look like. Nothing is sent anywhere, and it is not for diagnosis."""
    from braing3n_core.prior import SHIPPED, read_prior
    from client.embed import registered
    from client.forecast import write_forecast

    model = read_prior(weights or SHIPPED / "tiny.safetensors", parts=("trajectory",))
    found = write_forecast(scan, out, model, known or [], years, registered(registration))
    console.show("\n".join([*found.told(), f"{out}: now.nii.gz, forecast.nii.gz, forecast.png, forecast.json"]))


def main() -> NoReturn:
    """The command's entry point."""
    command.run(app, "braing3n-site")
