"""The commands of `braing3n-sim` that make public weights and say what a model can do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from braing3n_core import console
from braing3n_core.scratch import scratch
from simulations.recipe_files import RECIPES, found_recipe

if TYPE_CHECKING:
    from braing3n_core.models.brain import Brain

models = typer.Typer()


@models.command()
def prior(
    recipe: Annotated[Path, typer.Argument(help="For example simulations/recipes/prior_tiny.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and their record; a stopped run in it goes on.")],
) -> None:
    """Make a public prior again, from phantoms alone: under two hours on two cores."""
    from server.prior import PriorRecipe, train_prior

    console.show(str(train_prior(PriorRecipe.load(found_recipe(recipe)), out, console.note)))


@models.command()
def spread(
    recipe: Annotated[Path, typer.Argument(help="For example simulations/recipes/spread_tiny.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for the constants and their record.")],
) -> None:
    """Measure again how the shipped prior's people are spread, asked for as phantoms are: a few minutes on two cores."""
    from server.spread import SpreadRecipe, measure_spread

    console.show(str(measure_spread(SpreadRecipe.load(found_recipe(recipe)), out, console.note)))


@models.command()
def steering(
    recipe: Annotated[Path, typer.Argument(help="For example simulations/recipes/steering_tiny.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for the constants and their record.")],
) -> None:
    """Fit again what measured volumes are of the shipped prior's latents, from phantoms alone: a few minutes on two cores."""
    from server.steering import SteeringRecipe, fit_steering

    console.show(str(fit_steering(SteeringRecipe.load(found_recipe(recipe)), out, console.note)))


@models.command()
def modality(
    recipe: Annotated[Path, typer.Argument(help="For example simulations/recipes/flair_tiny.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights; a stopped run goes on from it.")],
) -> None:
    """Make a modality beside the shipped prior again, from phantoms alone: about an hour on two cores."""
    from server.modality import ModalityRecipe, train_modality

    console.show(str(train_modality(ModalityRecipe.load(found_recipe(recipe)), out, console.note)))


@models.command()
def modalities(
    out: Annotated[Path | None, typer.Option(help="Folder for modalities.json, and pictures of two people.")] = None,
    people: Annotated[int, typer.Option(min=8, help="Phantoms whose FLAIR is known, and generated people.")] = 48,
    data: Annotated[Path | None, typer.Option(help="Real people's T1w and FLAIR, BIDS, in place of phantoms.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A prior and its FLAIR; none: those that ship.")] = None,
    weight: Annotated[list[str] | None, typer.Option(help="variable=WEIGHT, guidance of one; none: 1.")] = None,
) -> None:
    """Hold FLAIR images that are made from T1w against those of unseen phantoms, and lesions against what was asked for."""
    from braing3n_core.files import write_atomically
    from braing3n_core.plan import TrainingPlan
    from braing3n_core.prior import SHIPPED, read_prior
    from simulations import control as controlling
    from simulations import modalities as shown

    model = read_prior(weights or SHIPPED / "tiny.safetensors", parts=(shown.FLAIR,))
    if data:
        plan = TrainingPlan.load(RECIPES / "two_modalities.toml")
        with scratch("braing3n-modalities-") as cache:
            ways = shown.of_patients(model, plan, data, cache)
        console.show("\n".join(shown.rows_of(data.name, ways)))
        return
    found = shown.told_for(model, people, console.note, controlling.weights(weight or []))
    if out:
        out.mkdir(parents=True, exist_ok=True)
        shown.write(found, out / "modalities.json")
        write_atomically(out / "modalities.png", shown.picture(found))
        write_atomically(out / "lesions.png", shown.picture_of_loads(found))
    console.show("\n".join(shown.told(found)))


@models.command()
def trajectory(
    recipe: Annotated[Path, typer.Argument(help="For example simulations/recipes/trajectory_tiny.toml.")],
    out: Annotated[Path, typer.Option(help="Folder for the weights and their record; a stopped run in it goes on.")],
) -> None:
    """Make the trajectory beside the shipped prior again, from phantoms alone: about an hour on two cores."""
    from server.trajectory import TrajectoryRecipe, train_trajectory

    console.show(str(train_trajectory(TrajectoryRecipe.load(found_recipe(recipe)), out, console.note)))


@models.command()
def forecast(
    out: Annotated[Path | None, typer.Option(help="Folder for forecast.json and a picture of one person.")] = None,
    years: Annotated[str, typer.Option(help="Between two visits, commas between.")] = "5,10,20",
    people: Annotated[int, typer.Option(min=8, help="Phantoms whose later visit is forecast.")] = 48,
    known: Annotated[int, typer.Option(min=8, help="Others, whose average change is the rival.")] = 96,
    weights: Annotated[Path | None, typer.Option(help="A prior and its trajectory; none: those that ship.")] = None,
) -> None:
    """Forecast a later visit of unseen phantoms: the error beside no change and beside what people change on average."""
    from braing3n_core.files import write_atomically
    from braing3n_core.prior import SHIPPED, read_prior
    from simulations import forecasts
    from simulations.frontier.points import numbers

    model = read_prior(weights or SHIPPED / "tiny.safetensors", parts=("trajectory",))
    found = [forecasts.told_for(model, gap, people, known, console.note) for gap in numbers("years", years)]
    rows = [row for each in found for row in each.rows]
    if out:
        out.mkdir(parents=True, exist_ok=True)
        forecasts.write(rows, out / "forecast.json")
        write_atomically(out / "forecast.png", forecasts.picture(found[-1]))
    console.show("\n".join(forecasts.told(rows)))


@models.command()
def probe(
    data: Annotated[list[str], typer.Option(help="site=DIR, once per site.")],
    out: Annotated[Path, typer.Option(help="Folder for probe.json and the cache of aligned scans.")],
    recipe: Annotated[Path, typer.Option(help="Whose grid, variables and registration.")] = Path("real_three_sites.toml"),
    weights: Annotated[Path | None, typer.Option(help="A prior with its record beside it; none: the one that ships.")] = None,
) -> None:
    """What a linear map reads from the frozen encoder: age, sex, site and more, beside voxels, PCA and knowing nothing."""
    from braing3n_core.plan import TrainingPlan
    from braing3n_core.prior import load_prior, read_prior
    from simulations import probe as probes

    plan = probes.plan_for(TrainingPlan.load(found_recipe(recipe)), data)
    people = probes.gather(plan, data, out / "cache", console.note)
    scores = probes.benchmark(plan, read_prior(weights) if weights else load_prior(plan), people, console.note)
    probes.write(scores, out / "probe.json")
    console.show("\n".join(probes.told(scores)))


@models.command()
def tokenizer(
    out: Annotated[Path, typer.Option(help="Folder for tokenizer.json, probe.json and the cache of aligned scans.")],
    weights: Annotated[list[Path] | None, typer.Option(help="A prior, once for each; none: the one that ships.")] = None,
    people: Annotated[int, typer.Option(min=8, help="Unseen phantoms of each of two scanners.")] = 64,
    data: Annotated[list[str] | None, typer.Option(help="site=DIR: real scans to keep and to probe as well.")] = None,
) -> None:
    """What priors' tokenizers keep of scans, side by side, and with --data what a probe reads from their tokens."""
    from simulations.reconstruction import compared

    console.show("\n".join(compared(weights or [], out, people, data or [], console.note)))


@models.command()
def baselines(
    out: Annotated[Path, typer.Option(help="Folder for the baseline's weights, tables and picture; a stopped run goes on.")],
    recipe: Annotated[Path, typer.Option(help="How MONAI's networks are trained.")] = Path("monai_tiny.toml"),
    people: Annotated[int, typer.Option(min=32, max=640, help="Unseen phantoms that everybody is held against.")] = 160,
    data: Annotated[list[str] | None, typer.Option(help="site=DIR: real scans to keep and to probe as well.")] = None,
) -> None:
    """Train MONAI's latent diffusion on the prior's phantoms (two hours of a core), and hold the prior and PCA beside it."""
    from simulations.baselines.run import compared
    from simulations.baselines.training import BaselineRecipe

    console.show("\n".join(compared(BaselineRecipe.load(found_recipe(recipe)), out, people, data or [], console.note)))


@models.command()
def swap(
    out: Annotated[Path | None, typer.Option(help="JSON file to write as well.")] = None,
    people: Annotated[int, typer.Option(min=2, help="Synthetic people, each made before and after.")] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Heun steps.")] = 12,
    weights: Annotated[Path | None, typer.Option(help="A prior with its record beside it; none: the one that ships.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Bring people to volumes, as its steering says.")] = False,
) -> None:
    """Change one condition of the same synthetic people: does it act, and do the other measures stay?"""
    from braing3n_core.prior import SHIPPED, beside_prior
    from simulations import swap as swapping
    from simulations.modalities import FLAIR

    prior = weights or SHIPPED / "tiny.safetensors"
    model = _prior(prior, exact, (FLAIR,) if beside_prior(prior, FLAIR).exists() else ())
    found = swapping.swaps(model, people, 1, steps)
    if out:
        swapping.write(found, out)
    console.show("\n".join(swapping.told(found)))


@models.command()
def distances(
    medicalnet: Annotated[Path | None, typer.Option(help="MedicalNet's weights as safetensors; none: encoder alone.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write as well.")] = None,
    people: Annotated[int, typer.Option(min=8, help="Phantoms that no weights saw, and as many generated people.")] = 160,
    steps: Annotated[int, typer.Option(min=1, help="Heun steps.")] = 12,
    weights: Annotated[Path | None, typer.Option(help="A prior with its record beside it; none: the one that ships.")] = None,
) -> None:
    """KID and Frechet distance of generated people from unseen ones, in the encoder's features and in MedicalNet's."""
    from braing3n_core.prior import SHIPPED, read_prior
    from simulations import distances as measured

    model = read_prior(weights or SHIPPED / "tiny.safetensors")
    found = measured.distances(model, people, steps, medicalnet, console.note)
    if out:
        measured.write(found, out)
    console.show("\n".join(measured.told(found)))


@models.command()
def control(
    finished: Annotated[Path | None, typer.Option("--run", help="A finished run; none: the shipped prior.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for control.json and control.png.")] = None,
    people: Annotated[int, typer.Option(min=8, help="Generated people of each column.")] = 96,
    steps: Annotated[int, typer.Option(min=1, help="Heun steps.")] = 12,
    weight: Annotated[list[str] | None, typer.Option(help="variable=WEIGHT, guidance of one; none: 1.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Bring the prior's people to volumes, the brain's too.")] = False,
) -> None:
    """What was asked of generated people against what is measured on them, for every variable there is a measure of."""
    from braing3n_core.errors import UsageError
    from braing3n_core.files import write_atomically
    from braing3n_core.prior import SHIPPED, load_prior
    from server.release.stages import finished_run
    from simulations import control as controlling

    if finished and exact:
        raise UsageError("--exact is for the shipped prior; a run says in its plan whether its release is exact")
    model = finished_run(finished, load_prior)[1] if finished else _prior(SHIPPED / "tiny.safetensors", exact)
    found = controlling.controls(model, people, steps, controlling.weights(weight or []), console.note)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        controlling.write(found, out / "control.json")
        write_atomically(out / "control.png", controlling.picture(found))
    console.show("\n".join(controlling.told(found)))


@models.command()
def locality(
    out: Annotated[Path, typer.Option(help="PNG to write: before, after, difference.")],
    token: Annotated[int | None, typer.Option(help="Which to edit; none: the one in the middle.")] = None,
    levels: Annotated[int, typer.Option(min=2, help="Of each digit of a token.")] = 15,
    seed: Annotated[int, typer.Option(min=0, help="Of the synthetic person.")] = 1,
) -> None:
    """Edit one discrete token of a synthetic person: where does it show? A picture, and numbers over many tokens."""
    from braing3n_core.files import write_atomically
    from braing3n_core.prior import SHIPPED, read_prior
    from simulations import locality as places

    model = read_prior(SHIPPED / "tiny.safetensors")
    latents = places.person(model, seed, 12)
    one = places.edited(model, latents, places.middle(model) if token is None else token, levels)
    write_atomically(out, places.picture(model, one))
    console.show("\n".join(places.told(one, places.many(model, latents, levels))))


def _prior(weights: Path, exact: bool, parts: tuple[str, ...] = ()) -> Brain:
    """A prior with `parts`; if `exact`, one whose people are brought to volumes, the brain's too."""
    from braing3n_core.plan import DEFAULT_VARIABLES
    from braing3n_core.prior import read_prior
    from simulations.control import BRAIN

    return read_prior(weights, (*DEFAULT_VARIABLES, BRAIN), (*parts, "steering")) if exact else read_prior(weights, parts=parts)
