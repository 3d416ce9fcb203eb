"""`braing3n-sim`: phantom hospitals, the recipes that ship, and whole runs on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from braing3n_core import command, console
from braing3n_core.command import EXIT_CODES
from simulations.bench.cli import bench
from simulations.model_cli import models
from simulations.recipe_files import RECIPES, found_recipe

Mechanism = Literal["local", "secure-sum", "non-private"]    # braing3n_core.budget's, without its imports

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=f"Rehearse a study. {EXIT_CODES}"
)
app.add_typer(bench, name="bench")
app.add_typer(models)


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to fill with one BIDS dataset per site.")],
    patients: Annotated[int, typer.Option(min=1, help="Patients of each site.")] = 100,
    sites: Annotated[int, typer.Option(min=1, max=100)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    modalities: Annotated[str, typer.Option(help="Of T1w, T2w, FLAIR, T1ce, with commas between.")] = "T1w",
    visits: Annotated[int, typer.Option(min=1, max=20, help="Of each patient, a year apart.")] = 1,
    tumours: Annotated[float, typer.Option(min=0, max=1, help="Share of patients with a tumour.")] = 0.0,
    preset: Annotated[str, typer.Option(help="Grid: tiny (4 mm) or small (2 mm).")] = "tiny",
    answers: Annotated[bool, typer.Option("--answers", help="Label maps, and truth tables of every visit.")] = False,
    labels: Annotated[Path | None, typer.Option(help="Folder of *_dseg.nii.gz and dseg.tsv: other heads.")] = None,
) -> None:
    """Write phantom hospitals as ordinary BIDS folders, with the truth in participants.tsv.

    Any option beyond T1w, one visit and no tumours brings label maps and truth tables along.
    """
    if answers or labels or (modalities, visits, tumours, preset) != ("T1w", 1, 0.0, "tiny"):
        from simulations.answers import write_answered

        made = write_answered(out, patients, sites, seed, modalities, visits, tumours, preset, labels, _counter("phantoms"))
    else:
        from braing3n_core.data.phantom import write_folders

        made = write_folders(out, patients, sites, seed, _counter("phantoms"))
    console.show("\n".join(str(folder) for folder in made))


@app.command(name="list")
def recipes(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """List the recipes that ship, each with the question it asks."""
    import tomllib

    found = {path: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(RECIPES.glob("*.toml"))}
    rows = [
        {"recipe": str(path), "question": plan["question"], "note": plan.get("rehearsal", {}).get("note", "")}
        for path, plan in found.items()
        if "study" in plan
    ]
    console.show(json.dumps(rows, indent=1) if as_json else "\n".join(_entry(row) for row in rows))


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A plan as TOML, for example simulations/recipes/smoke.toml.")],
    out: Annotated[Path, typer.Option(help="Output folder; an unfinished run of the same plan in it is taken up.")],
    data: Annotated[list[str] | None, typer.Option(help="site=DIR, once per site; none for phantom hospitals.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds of every stage.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Budget of every site.")] = None,
    patients: Annotated[int | None, typer.Option(help="Phantoms of every site.")] = None,
    mechanism: Annotated[Mechanism | None, typer.Option(help="In place of the recipe's, with as many steps.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json instead of lines.")] = False,
) -> None:
    """Run a recipe through Flower on this machine and print where the release is, what it cost, and how good it is."""
    from braing3n_core.plan import TrainingPlan
    from braing3n_core.settings import Settings, folders, overridden

    plan = overridden(TrainingPlan.load(found_recipe(recipe)), epsilon=epsilon, rounds=rounds, patients=patients)
    if mechanism is not None:
        from simulations.mechanisms import with_mechanism

        plan = with_mechanism(plan, mechanism)
    settings = Settings(plan, out.expanduser().absolute(), folders(plan, data or []))
    from simulations.rehearse import rehearse
    from simulations.summary import told

    if code := rehearse(settings, console.note):
        raise typer.Exit(code)
    text = (settings.out / "summary.json").read_text(encoding="utf-8")
    console.show(text.rstrip() if as_json else "\n".join(told(json.loads(text))))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Output folders of finished runs.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Finished runs side by side: epsilon spent, and every quality number."""
    from simulations import compare as comparing

    found = comparing.read(runs)
    console.show(console.for_programs(found) if as_json else "\n".join(comparing.told(found)))


@app.command()
def frontier(
    recipe: Annotated[Path, typer.Argument(help="A plan with phantom hospitals, for example demo.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for frontier.json, its picture and the runs; what is in it is kept.")],
    epsilon: Annotated[str, typer.Option(help="Budgets, commas between; inf: without privacy.")] = "1,3,8,inf",
    mechanism: Annotated[str, typer.Option(help="Of local, secure-sum, pooled (one place).")] = "local,secure-sum",
    sites: Annotated[str, typer.Option(help="Hospitals.")] = "3",
    patients: Annotated[str, typer.Option(help="Of each hospital.")] = "100",
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each point, each on patients of its own.")] = 1,
    change: Annotated[
        list[str] | None, typer.Option(help="Also with this changed, as TOML: 'stages.generator.clip = 0.8'. Once per change.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Points at a time, a process each; 0: one for each core, 1: no others.")] = 0,
    reference: Annotated[Path | None, typer.Option(help="File to write as well: what `plan advice` reads.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print frontier.json instead of lines.")] = False,
) -> None:
    """Utility against epsilon: one recipe, and changes of it, under many budgets, mechanisms and consortia. Resumable."""
    from braing3n_core.files import write_atomically
    from braing3n_core.plan import TrainingPlan
    from simulations.frontier.page import picture, told
    from simulations.frontier.points import asked
    from simulations.frontier.run import run as run_all

    wanted = asked(sites, patients, mechanism, epsilon, repeats, change or [])
    plan = TrainingPlan.load(found_recipe(recipe))
    rows = run_all(plan, wanted, out.expanduser().absolute(), console.note, jobs)
    write_atomically(out / "frontier.png", picture(rows))
    if reference:
        from server.reference import as_bytes
        from simulations.frontier.reference import distilled

        write_atomically(reference, as_bytes(distilled(plan, rows)))
    console.show(json.dumps(rows, indent=1) if as_json else "\n".join(told(rows)))


@app.command()
def joining(
    recipe: Annotated[Path, typer.Argument(help="A plan as TOML, for example simulations/recipes/real_three_sites.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for joining.json and the runs; what is in it is taken up.")],
    data: Annotated[list[str] | None, typer.Option(help="site=DIR, once per site; none for phantom hospitals.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Trainings of each arm, with other noise.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print joining.json instead of lines.")] = False,
) -> None:
    """What joining is worth to each hospital: its held-out patients under the prior, training alone, and all together."""
    from braing3n_core.plan import TrainingPlan
    from braing3n_core.settings import Settings, folders
    from simulations import joining as joined

    plan = TrainingPlan.load(found_recipe(recipe))
    rows = joined.compare(Settings(plan, out.expanduser().absolute(), folders(plan, data or [])), repeats, console.note)
    joined.write(rows, out / "joining.json")
    console.show(joined.as_json(rows) if as_json else "\n".join(joined.told(rows)))


@app.command()
def gap(
    recipe: Annotated[Path, typer.Argument(help="A plan as TOML, for example simulations/recipes/real_three_sites.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for gap.json and prepared scans; what is in it is taken up.")],
    data: Annotated[list[str] | None, typer.Option(help="site=DIR, once per site; none for phantom hospitals.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print gap.json instead of lines.")] = False,
) -> None:
    """How far patients lie from the prior's people, and how near training could bring them at best, whatever the budget."""
    from braing3n_core.files import write_atomically
    from braing3n_core.plan import TrainingPlan
    from braing3n_core.settings import Settings, folders
    from server import lock
    from simulations import gap as gaps
    from simulations.joining import cohort_of

    plan = TrainingPlan.load(found_recipe(recipe))
    settings = Settings(plan, out.expanduser().absolute(), folders(plan, data or []))
    settings.out.mkdir(parents=True, exist_ok=True)
    with lock.held(settings.out):
        cohorts = [cohort_of(settings, site.name, console.note) for site in plan.sites]
        training, held_out = ([one for each in cohorts for one in getattr(each, part)] for part in ("training", "held_out"))
        found = gaps.gap(plan, training, held_out, console.note)
        write_atomically(settings.out / "gap.json", (gaps.as_json(found) + "\n").encode())
    console.show(gaps.as_json(found) if as_json else "\n".join(gaps.told(found)))


@app.command()
def law(
    out: Annotated[Path | None, typer.Option(help="PNG to write as well: measured against law.")] = None,
    recipe: Annotated[Path, typer.Option(help="Whose clips and delta.")] = Path("demo.toml"),
    runs: Annotated[int, typer.Option(min=1, help="Of each plan; its noise is their root mean square.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Hold the utility law against the noise that rounds really add, over weights, patients, sites and epsilon."""
    from braing3n_core.files import write_atomically
    from braing3n_core.plan import TrainingPlan
    from simulations import law as laws

    rows = laws.measure(TrainingPlan.load(found_recipe(recipe)), list(laws.cases()), runs, console.note)
    if out:
        write_atomically(out, laws.picture(rows))
    console.show(laws.as_json(rows) if as_json else "\n".join(laws.told(rows)))


@app.command()
def tstr(
    finished: Annotated[Path | None, typer.Option("--run", help="A finished run; none: the prior and phantoms.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write as well.")] = None,
    people: Annotated[int, typer.Option(min=16, help="Most real training patients, and as many generated.")] = 320,
    steps: Annotated[int, typer.Option(min=1, help="Heun steps.")] = 12,
    data: Annotated[list[str] | None, typer.Option(help="site=DIR, if the run's sites are not phantoms.")] = None,
) -> None:
    """Train on synthetic, test on real: what generated people teach a probe, beside as many real ones."""
    from braing3n_core.prior import SHIPPED, load_prior, read_prior
    from braing3n_core.settings import Settings, folders
    from server.release.stages import finished_run
    from simulations import tstr as transfers

    if finished is None:
        public = read_prior(SHIPPED / "tiny.safetensors")
        arms, (training, tested) = {"prior": public}, transfers.of_phantoms(public, people, people)
        found = transfers.rows(arms, public, training, tested, steps, 1.0, console.note)
    else:
        plan, model = finished_run(finished, load_prior)
        public, settings = load_prior(plan), Settings(plan, finished.expanduser().absolute(), folders(plan, data or []))
        training, tested = transfers.of_run(settings, people)
        arms = {"prior": public, "trained": model}
        found = transfers.rows(arms, public, training, tested, steps, plan.release.weights, console.note)
    if out:
        transfers.write(found, out)
    console.show("\n".join(transfers.told(found)))


@app.command()
def audit(
    recipe: Annotated[Path, typer.Argument(help="A plan as TOML, for example simulations/recipes/demo.toml.")],
    finished: Annotated[Path | None, typer.Option("--run", help="Output folder of its run: who was in it?")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Attack the private step of every stage and, with --run, what it made; claimed against measured. 6 if refuted."""
    from braing3n_core.errors import INTEGRITY
    from braing3n_core.plan import TrainingPlan
    from simulations import membership
    from simulations.audit import audit_plan

    measured, attacked = audit_plan(TrainingPlan.load(found_recipe(recipe))), None
    if finished:
        attacked = membership.attack_run(finished, console.note)
    if as_json:
        told = [one.as_json() for one in attacked] if attacked is not None else None
        console.show(json.dumps(measured.as_json() | {"membership": told}, indent=1))
    else:
        console.show("\n".join([*measured.in_words(), *(membership.in_words(attacked) if attacked is not None else ())]))
    if not measured.passed:
        raise typer.Exit(INTEGRITY)


def main() -> NoReturn:
    """The command's entry point."""
    command.run(app, "braing3n-sim")


def _counter(what: str) -> Callable[[int, int], None] | None:
    """Progress on standard error, if a person is looking."""
    if not sys.stderr.isatty():
        return None
    return lambda done, total: console.counted(what, done, total)


def _entry(row: dict[str, str]) -> str:
    return f"{row['recipe']}\n    {row['question']}" + (f"\n    {row['note']}" if row["note"] else "")
