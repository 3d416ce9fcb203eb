"""The report: one HTML file that opens without a network, says what the images are, what they cost and what is not promised."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from braing3n_core.data.template import SPACE
from braing3n_core.models.brain import Condition
from braing3n_core.page import script_hash
from braing3n_core.plan import T1W, Continuous, TrainingPlan
from server.release.calibrate import shipped
from server.release.certificate_words import FALSE_ALARMS
from server.release.certificate_words import meaning as allowed
from server.release.charts import bars, strips
from server.release.cohort import in_words
from server.release.gates import verdict as gate_verdict
from server.release.inputs import Control, Quality, ReleaseInputs, SitePrivacy, StagePrivacy, Sweep, finite, site_privacy
from server.release.mosaic import (
    CONVENTION,
    FULL_COLOUR,
    PLANES,
    Frame,
    Sheet,
    difference,
    enlarged,
    frame_of,
    jpeg,
    plane,
    sheet,
    three_planes,
)
from server.release.numbers import subgroups
from server.release.plots import DARK, LIGHT, Ink, budget_png, control_png, control_r, copies_png
from server.release.shown import by_visit, modalities

__all__ = ["Control", "Quality", "ReleaseInputs", "SitePrivacy", "StagePrivacy", "Sweep", "render", "site_privacy"]

MOSAIC = 24                                                  # volumes shown: fewer brains if each has several
SCROLLED = 24                                                # volumes one can scroll through
LARGEST_BYTES = 15_000_000                                   # a report must travel by mail
_STRIP_ZOOM, _SWEEP_ZOOM, _SHEET_ZOOM = 4, 4, 2              # pixels per voxel
_TEMPLATE = Path(__file__).parent / "report.html.j2"


@dataclass(frozen=True)
class View:
    """An image inside the page, with the words for those who cannot see it."""

    modality: str
    uri: str
    alt: str


@dataclass(frozen=True)
class Portrait:
    """One brain in every modality, with a caption."""

    caption: str
    views: tuple[View, ...]


@dataclass(frozen=True)
class Chart:
    """One chart for a light page and one for a dark page."""

    light: str
    dark: str
    alt: str


@dataclass(frozen=True)
class Step:
    """One value of a sweep: cuts, differences to the first value, and the measured ventricles."""

    value: str
    cuts: tuple[str, ...]
    changes: tuple[str, ...]                                 # empty at the first value
    measured: str
    share: float                                             # of the largest measured, 0..1


def render(inputs: ReleaseInputs) -> str:
    """The whole report. The same inputs give the same text; every word from the plan is escaped; no address is in it."""
    plan, frame = inputs.plan, frame_of(inputs.plan.model)
    variables = {variable.name: variable for variable in plan.variables}
    visits, shown = by_visit(inputs.people), modalities(inputs.people)
    page = _environment().get_template(_TEMPLATE.name).render(
        plan=plan,
        version=version("braing3n"),
        space=SPACE,
        convention=CONVENTION,
        full_colour=FULL_COLOUR,
        count=len(inputs.people),
        brains=len(visits),
        shown=shown,
        several=len(shown) > 1,
        cohort=in_words(inputs.people),
        private=plan.privacy.private,
        summed=plan.privacy.secure_sum,
        facts=_facts(inputs),
        mosaic=[_portrait(inputs, visit, frame) for visit in visits[: MOSAIC // len(shown)]],
        scroller=_scroller(inputs, visits[: SCROLLED // len(shown)], frame),
        sweeps=[(sweep, _steps(sweep, frame)) for sweep in inputs.sweeps],
        budget=_chart(lambda ink: budget_png(inputs.rounds, inputs.privacy, ink), "Epsilon spent per site after each round"),
        control=inputs.control and _chart(
            lambda ink: control_png(inputs.control, ink) if inputs.control else None,
            f"Requested against measured {inputs.control.name}",
        ),
        control_of=inputs.control,
        control_r=control_r(inputs.control) if inputs.control else None,
        panel=inputs.panel,
        fits=inputs.fits,
        privacy=sorted(inputs.privacy, key=lambda row: -row.epsilon),
        meaning=meaning(max(inputs.privacy, key=lambda row: row.epsilon)) if inputs.privacy else None,
        patients={site.name: site.patients for site in plan.sites},
        provenance=dict(inputs.provenance),
        edition=inputs.edition,
        gates=inputs.gates,
        verdict=gate_verdict(inputs.gates) if inputs.gates else None,
        copies=_chart(lambda ink: copies_png(shipped(), ink), "Similarity of public people and of planted copies"),
        reference=shipped(),
        strips=strips([inputs.findings[visit[T1W]] for visit in visits[: SCROLLED // len(shown)]] if inputs.findings else []),
        ledgers=bars(inputs.privacy),
        groups=subgroups(inputs),
        units={name: v.unit for name, v in variables.items() if isinstance(v, Continuous)},
        script_hash=script_hash(_TEMPLATE.read_text(encoding="utf-8")),
    )
    if len(page.encode()) > LARGEST_BYTES:
        raise ValueError(f"the report has {len(page.encode())} bytes, at most {LARGEST_BYTES} travel; show fewer volumes")
    return page


def describe(conditions: dict[str, Condition], plan: TrainingPlan) -> str:
    """Conditions as a caption: 72 y, F, dementia, ventricles 44 ml. What every image shares is left out."""
    words = []
    for variable in plan.variables:
        value = conditions.get(variable.name)
        if value is None or (not isinstance(variable, Continuous) and len(variable.levels) == 1):
            continue
        if not isinstance(variable, Continuous):
            words.append(str(value).replace("-", " "))
        elif variable.name == "age":
            words.append(f"{float(value):.0f} y")
        else:
            words.append(f"{variable.name} {float(value):.0f} {variable.unit}")
    return ", ".join(words) or "no condition requested"


def number(value: float | None, unit: str = "") -> str:
    """A number for a person, three digits or so; 'not measured' when there is none, so NaN is never printed."""
    known = finite(value)
    if known is None:
        return "infinite" if value == math.inf else "not measured"
    places = 0 if abs(known) >= 100 else 1 if abs(known) >= 10 else 2
    text = f"{known:.{places}f}" if known == 0 or abs(known) >= 0.01 else short(known)
    return f"{text} {unit}".strip()


def short(value: float) -> str:
    """A small number with two digits and no padding: 0.0001, 1.2e-5."""
    mantissa, _, exponent = f"{value:.2g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def verdict(row: Quality) -> str:
    """How the private arm stands to its baseline, in words."""
    baseline, private = finite(row.baseline), finite(row.private)
    if baseline is None or private is None:
        return ""
    gap = private - baseline
    if gap == 0:
        return "equal to baseline"
    by = number(abs(gap), row.unit)
    if row.better == "closer":
        return f"{by} {'above' if gap > 0 else 'below'} its target"
    return f"{'better' if (gap > 0) == (row.better == 'higher') else 'worse'} than baseline by {by}"


def meaning(row: SitePrivacy) -> dict[str, str] | None:
    """What (epsilon, delta) promises against an adversary who knows everything else, in words; None without a guarantee."""
    if not math.isfinite(row.epsilon):
        return None
    posterior, caught = allowed(row.epsilon, row.delta)
    return {
        "site": row.site,
        "epsilon": number(row.epsilon),
        "posterior": _percent(posterior),
        "false": _percent(FALSE_ALARMS),
        "caught": _percent(caught),
    }


def _percent(share: float) -> str:
    """Never rounded up to 100 % while something is left."""
    text = f"{100 * share:.0f}" if share <= 0.99 else f"{math.floor(1e4 * share) / 100:.2f}"
    return f"{text} %"


def _facts(inputs: ReleaseInputs) -> list[tuple[str, str, str]]:
    """The three or four numbers a reader came for: value, what it is, beside what."""
    count, _, what = in_words(inputs.people).partition(" ")
    facts = [(count, what, "none is a scan of a person")]
    if inputs.privacy:
        worst = max(inputs.privacy, key=lambda row: row.epsilon)
        spent = "epsilon spent per patient, highest of all sites"
        facts.append((number(worst.epsilon), spent, f"of {number(worst.agreed)} agreed"))
    for row in [row for row in inputs.panel if finite(row.private) is not None][:2]:
        facts.append((number(row.private, row.unit), row.name, f"{row.baseline_name}: {number(row.baseline, row.unit)}"))
    return facts


def _portrait(inputs: ReleaseInputs, visit: Mapping[str, int], frame: Frame) -> Portrait:
    """`visit` says where the image of each modality is."""
    caption = describe(inputs.people[visit[T1W]].now, inputs.plan)
    views = []
    for name, at in visit.items():
        picture = jpeg(three_planes(inputs.volumes[at], frame, _STRIP_ZOOM))
        words = f"{inputs.people[at].image}: axial, coronal and sagittal cut; requested {caption}"
        views.append(View(name, _uri(picture, "jpeg"), words))
    return Portrait(caption, tuple(views))


def _steps(sweep: Sweep, frame: Frame) -> list[Step]:
    """A sweep as cards; every card has the same cuts."""
    largest = max((m for m in sweep.measured if math.isfinite(m)), default=0.0)
    steps = []
    for i, (value, volume, measured) in enumerate(zip(sweep.values, sweep.volumes, sweep.measured, strict=True)):
        box, (_, y, z) = frame.crop(volume), frame.cuts
        cuts = [enlarged(plane(box, name, at), _SWEEP_ZOOM) for name, at in (("axial", z), ("coronal", y))]
        changes = [difference(volume, sweep.volumes[0], frame, name, _SWEEP_ZOOM) for name in ("axial", "coronal")] if i else []
        steps.append(
            Step(
                value=f"{value:g} {'years' if sweep.unit == 'year' else sweep.unit}",
                cuts=tuple(_uri(jpeg(cut), "jpeg") for cut in cuts),
                changes=tuple(_uri(jpeg(change), "jpeg") for change in changes),
                measured=number(measured, "ml"),
                share=measured / largest if largest > 0 and math.isfinite(measured) else 0.0,
            )
        )
    return steps


@dataclass(frozen=True)
class Scroller:
    """Every slice of a few brains: the first one's `sheets` of each plane, sides in voxels, and where to start.

    `uris[modality][brain][plane]`; no planes where a brain lacks that modality.
    """

    names: list[str]
    captions: list[str]
    sheets: list[Sheet]
    uris: dict[str, list[list[str]]]
    cuts: tuple[int, int, int]                               # x, y, z
    sides: tuple[int, int, int]


def _scroller(inputs: ReleaseInputs, visits: Sequence[Mapping[str, int]], frame: Frame) -> Scroller:
    shown = [inputs.people[visit[T1W]] for visit in visits]
    sheets = {
        name: [_sheets(inputs.volumes[visit[name]], frame) if name in visit else [] for visit in visits]
        for name in modalities(inputs.people)
    }
    return Scroller(
        names=[person.visit for person in shown],
        captions=[describe(person.now, inputs.plan) for person in shown],
        sheets=sheets[T1W][0],
        uris={name: [[_uri(one.jpeg, "jpeg") for one in brain] for brain in brains] for name, brains in sheets.items()},
        cuts=frame.cuts,
        sides=frame.sides,
    )


def _sheets(volume: Tensor, frame: Frame) -> list[Sheet]:
    return [sheet(volume, frame, name, _SHEET_ZOOM) for name in PLANES]


def _chart(draw: Callable[[Ink], bytes | None], alt: str) -> Chart | None:
    light, dark = draw(LIGHT), draw(DARK)
    return Chart(_uri(light, "png"), _uri(dark, "png"), alt) if light and dark else None


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "short": short, "verdict": verdict, "trusted": Markup}
    return environment
