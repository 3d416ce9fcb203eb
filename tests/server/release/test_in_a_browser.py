"""Report and certificate as people use them: in a browser, by keys, on a telephone, on paper, read aloud; without a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from braing3n_core.data.patient import Wishes, people
from braing3n_core.plan import Hospital
from server.release.anatomy import examine
from server.release.gates import Gate
from server.release.inputs import ReleaseInputs
from server.release.report import render
from tests.accessibility import faults, focus_faults
from tests.chrome import Tab, browser, chrome
from tests.server.release.conftest import Signed

pytestmark = [browser, pytest.mark.slow]
GATES = [Gate("budget", True, "within what was agreed", "epsilon 8"), Gate("copies", True, "no vote", "none", applies=False)]
PAGES = ("report", "both", "certificate")


@pytest.fixture(scope="module")
def pages(inputs: ReleaseInputs, signed: Signed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    found = [examine(volume, inputs.plan.model) for volume in inputs.volumes]
    whole = dataclasses.replace(inputs, gates=GATES, findings=found)
    (out / "report.html").write_text(render(whole), encoding="utf-8")
    (out / "both.html").write_text(render(with_flair(whole)), encoding="utf-8")
    certificate = signed.release / "docs" / "privacy_certificate.html"
    return {"report": out / "report.html", "both": out / "both.html", "certificate": certificate}


def with_flair(inputs: ReleaseInputs) -> ReleaseInputs:
    """The same people, and a FLAIR of each but the last."""
    brains = list(people(inputs.plan.model, len(inputs.people), 3, Hospital(name="x"), Wishes(modalities=("T1w", "FLAIR"))))
    shown = [
        dataclasses.replace(person, modality=modality)
        for person in inputs.people for modality in ("T1w", "FLAIR") if modality == "T1w" or person != inputs.people[-1]
    ]  # fmt: skip
    places = [[one.name for one in inputs.people].index(person.name) for person in shown]
    volumes = [brains[place].visits[0].images[one.modality][None] for place, one in zip(places, shown, strict=True)]
    found = [examine(volume, inputs.plan.model, one.modality) for volume, one in zip(volumes, shown, strict=True)]
    return dataclasses.replace(inputs, people=shown, volumes=torch.stack(volumes), findings=found)


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chrome(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_nobody_is_left_out_of_a_page(tab: Tab, pages: dict[str, Path], name: str, width: int, scheme: str) -> None:
    tab.open(pages[name], width, scheme=scheme)
    assert faults(tab) == []
    assert tab.said == [], "no error in the console"
    assert [address for address in tab.asked if not address.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("name", PAGES)
def test_keys_lead_through_the_whole_page_in_order(tab: Tab, pages: dict[str, Path], name: str) -> None:
    tab.open(pages[name])
    assert focus_faults(tab, 200) == []


def test_the_check_itself_sees_what_is_wrong(tab: Tab, pages: dict[str, Path], tmp_path: Path) -> None:
    """Every kind of fault planted once: a check that passes everything would be worth nothing."""
    text = pages["report"].read_text(encoding="utf-8")
    planted = {
        ' lang="en"': ("", "no lang"), ' alt="': (' data-gone="', "no alt"), ' scope="col"': ("", "th without scope"),
        "<h3 id": ("<h5 id", "level skipped"), 'aria-label="image to look through"': ("", ""),
        "--soft:#5a6474": ("--soft:#b5b9c0", "contrast"), "<main>": ("<div>", "not one main"),
        ".wide{overflow-x:auto": (".wide{min-width:2000px", "px wide"),
    }  # fmt: skip
    for right, (wrong, complaint) in planted.items():
        assert right in text
        (tmp_path / "wrong.html").write_text(text.replace(right, wrong), encoding="utf-8")
        tab.open(tmp_path / "wrong.html", 390)
        assert any(complaint in fault for fault in faults(tab)) or not complaint, right


def test_the_viewer_is_moved_by_keys_and_opened_from_the_group_plot(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["report"])
    slice_ = "document.querySelector('.slice').style.backgroundPosition"
    before = tab.js(slice_)
    tab.js("document.querySelector('.viewer input').focus()")
    tab.press("ArrowRight")
    assert tab.js(slice_) != before
    assert tab.js("document.querySelector('.viewer input').getAttribute('aria-valuetext')").startswith("slice ")
    tab.js("document.querySelector('.dot[data-person=\"3\"]').focus()")
    tab.press("Enter")
    assert tab.js("document.querySelector('.viewer select').value") == "3"
    assert tab.js("document.activeElement.tagName") == "SELECT", "who cannot see that the viewer changed is taken to it"
    assert tab.js("getComputedStyle(document.querySelector('.slice.v3')).backgroundImage").startswith("url")


def test_a_flair_lies_below_its_t1w_and_moves_with_it(tab: Tab, pages: dict[str, Path]) -> None:
    tab.open(pages["both"])
    below = "getComputedStyle(document.querySelector('.slice.p0 u'))"
    assert tab.js(f"{below}.backgroundImage").startswith("url")
    assert tab.js(f"{below}.backgroundImage") != tab.js("getComputedStyle(document.querySelector('.slice.p0')).backgroundImage")
    tab.js("document.querySelector('.viewer input').focus()")
    tab.press("ArrowRight")
    assert tab.js(f"{below}.backgroundPosition") == tab.js("document.querySelector('.slice').style.backgroundPosition")
    for width in (1280, 390):
        tab.open(pages["both"], width)
        box = "(k => document.querySelectorAll(k)[0].getBoundingClientRect())"
        slice_, flair, control = (f"{box}('{name}')" for name in (".slice", ".slice u", ".viewer input"))
        assert tab.js(f"{flair}.top") == pytest.approx(tab.js(f"{slice_}.bottom") + 8, abs=1)
        assert tab.js(f"{flair}.bottom") <= tab.js(f"{control}.top"), "it hides no control"
    tab.js("document.querySelector('.open[data-person=\"5\"]').click()")
    assert tab.js(f"{below}.backgroundImage") == "none", "who has no FLAIR shows none"


@pytest.mark.parametrize("name", ["report", "both"])
def test_on_paper_no_figure_is_lost(tab: Tab, pages: dict[str, Path], name: str) -> None:
    tab.open(pages[name], 718)                               # A4 within its margins
    tab.call("Emulation.setEmulatedMedia", media="print")
    figures = ".slice, .slice u, .mosaic img, .step img, .chart img"
    sizes = tab.js(f"[...document.querySelectorAll('{figures}')].map(e => e.clientHeight)")
    assert len(sizes) > 20
    assert min(sizes) > 20
    tab.open(pages[name])
    assert tab.printed().startswith(b"%PDF")
