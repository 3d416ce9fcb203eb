"""A release with T1w and FLAIR of each person: each is judged by what it can tell, both stand or fall, `verify` holds."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from braing3n_core.data.patient import Wishes, people
from braing3n_core.data.volume import read_volume
from braing3n_core.errors import DataRefused, PlanRefused
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital, TrainingPlan
from braing3n_core.prior import load_prior
from server.release import gates
from server.release.anatomy import Findings, examine, implausible
from server.release.bundle import bundle_files
from server.release.candidates import Candidate, candidates
from server.release.certificate_words import Known, statements
from server.release.cohort import Person, in_words
from server.release.dataset import write_dataset
from server.release.inputs import ReleaseInputs
from server.release.judge import Judged, judge
from server.release.mosaic import hero_png
from server.release.numbers import metrics_json, subgroups
from server.release.policy import Policy
from server.release.report import render
from server.release.shown import by_visit, listed, sequences, white
from tests.server.release.hospitals import EDITION, Hospitals, shown_in_both

BOTH = ("T1w", "FLAIR")
RULES = Policy.load().rules
CELLS = [
    {"count": 2, "modalities": BOTH, "conditions": {"age": [60, 80], "sex": ["F"], "ventricles": [20, 40]}},
    {"count": 1, "conditions": {"age": [30, 40]}},
]


@pytest.fixture(scope="module")
def both(voting: TrainingPlan) -> TrainingPlan:
    return shown_in_both(voting, {"seed": 5, "steps": 2, "cells": CELLS})


@pytest.fixture(scope="module")
def pool(both: TrainingPlan) -> list[Candidate]:
    return candidates(both.release, both.variables, RULES.copies, True)


@pytest.fixture(scope="module")
def made(pool: list[Candidate]) -> Tensor:
    """(c, 1, D, H, W): phantoms where the generator would draw, one brain for all images of a person."""
    brains = list(people(PRESETS["tiny"], pool[-1].number + 1, 9, Hospital(name="x"), Wishes(modalities=BOTH)))
    return torch.stack([brains[one.number].visits[0].images[one.person.modality][None] for one in pool])


@pytest.fixture(scope="module")
def judged(both: TrainingPlan, pool: list[Candidate], made: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return judge(both, Policy.load(), Hospitals(tmp_path_factory.mktemp("sites"), both), pool, made)


@pytest.fixture(scope="module")
def inputs(both: TrainingPlan, judged: Judged, made: Tensor) -> ReleaseInputs:
    shown, places = [one.person for one in judged.people], [one.index for one in judged.people]
    return ReleaseInputs(both, shown, made[places], gates=judged.gates, findings=judged.findings, edition=EDITION)


# --------------------------------------------------------------------------------------------------------- who


def test_every_image_has_a_name_of_its_own_and_a_person_is_counted_once(judged: Judged) -> None:
    shown = [one.person for one in judged.people]
    names = ["sub-syn0001", "sub-syn0001_FLAIR", "sub-syn0002", "sub-syn0002_FLAIR", "sub-syn0003"]
    assert [person.image for person in shown] == names
    assert [person.first for person in shown] == [True, False, True, False, True]
    assert in_words(shown) == "5 images of 3 synthetic people"
    assert by_visit(shown) == [{"T1w": 0, "FLAIR": 1}, {"T1w": 2, "FLAIR": 3}, {"T1w": 4}]
    assert sequences(shown) == "T1-weighted and FLAIR"


def test_words_for_one_two_and_three() -> None:
    assert [listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
    assert [white(["T1w"]), white(BOTH)] == ["0.85", "0.85, on FLAIR 0.55"]


def test_more_images_of_a_person_need_more_spare_people(both: TrainingPlan, pool: list[Candidate]) -> None:
    spares = len({one.number for one in pool if one.cell == 0}) - 2
    assert spares == max(RULES.copies.least_spare, RULES.copies.spares(2, True, 2))
    assert RULES.copies.spares(100, True, 2) > RULES.copies.spares(100, True)


# ------------------------------------------------------------------------------------------------------- gates


def test_a_flair_is_judged_by_what_a_flair_tells(both: TrainingPlan, pool: list[Candidate], made: Tensor) -> None:
    pairs = zip(pool[:6], made[:6], strict=True)
    found = [examine(volume, both.model, one.person.modality) for one, volume in pairs]
    assert [implausible(one, RULES.anatomy) for one in found] == [None] * len(found)
    for t1w, flair in zip(found[:4:2], found[1:4:2], strict=True):
        assert flair.brain_ml == pytest.approx(t1w.brain_ml, rel=0.03), "one brain"
        assert math.isnan(flair.ventricles_ml)
        assert math.isnan(flair.grey_share)


def test_what_is_no_brain_is_never_a_flair_of_one(both: TrainingPlan, made: Tensor) -> None:
    scattered = made[1].clone()
    scattered[:, ::3, ::3, ::3] = 1.0
    for broken in (torch.zeros_like(made[1]), torch.rand_like(made[1]), torch.roll(made[1], 14, dims=2), scattered):
        why = implausible(examine(broken, both.model, "FLAIR"), RULES.anatomy)
        assert why is not None
        assert why.startswith("FLAIR: ")
    with pytest.raises(DataRefused, match="not finite"):
        examine(made[1] * math.nan, both.model, "FLAIR")


def test_nan_passes_no_rule_that_a_modality_has() -> None:
    flair = Findings(1700.0, math.nan, math.nan, math.nan, 0.0, 0.0, "FLAIR")
    assert implausible(flair, RULES.anatomy) is None
    assert implausible(dataclasses.replace(flair, modality="T1w"), RULES.anatomy) is not None
    for name in ("brain_ml", "outside", "fragments"):
        assert implausible(dataclasses.replace(flair, **{name: math.nan}), RULES.anatomy) is not None


@pytest.mark.slow                                            # MS-SSIM, four times
def test_people_who_are_alike_in_one_modality_are_no_cohort(both: TrainingPlan, made: Tensor) -> None:
    t1w, flair = made[0:6:2], made[1:6:2]
    gate = gates.diversity(RULES.diversity, {"T1w": t1w, "FLAIR": flair}, both.model)
    assert gate.passed
    assert re.fullmatch(r"T1w: most similar pair [\d.]+, mean [^;]+; FLAIR: most similar pair [\d.]+, mean \S+ \S+", gate.found)
    twins = torch.cat([flair[:1], flair[:1] + 0.001])
    for shown in ({"T1w": t1w, "FLAIR": twins}, {"T1w": twins, "FLAIR": flair}):
        closed = gates.diversity(RULES.diversity, shown, both.model)
        assert not closed.passed
        assert closed.numbers["most_similar"] > RULES.diversity.most_similar
    assert gates.diversity(RULES.diversity, {"T1w": t1w, "FLAIR": flair[:1]}, both.model).applies
    assert not gates.diversity(RULES.diversity, {"T1w": t1w[:1], "FLAIR": flair[:1]}, both.model).applies


def test_ventricles_are_asked_of_and_measured_on_t1w_alone(judged: Judged) -> None:
    assert [gate.passed for gate in judged.gates] == [True] * 5
    assert [math.isfinite(value) for value in judged.measured] == [True, False, True, False, True]
    assert judged.control is not None
    assert judged.control.measured == (judged.measured[0], judged.measured[2]), "two people had ventricles requested"


@pytest.mark.slow
def test_one_broken_image_takes_the_whole_person(
    both: TrainingPlan, pool: list[Candidate], made: Tensor, tmp_path: Path
) -> None:
    broken = made.clone()
    broken[1] = 0
    found = judge(both, Policy.load(), Hospitals(tmp_path, both), pool, broken)
    assert 0 not in {one.number for one in found.people}
    assert [one.person.name for one in found.people] == [f"sub-syn000{n}" for n in (1, 1, 2, 2, 3)]


def test_candidates_that_were_made_for_other_people_are_never_judged(
    both: TrainingPlan, pool: list[Candidate], made: Tensor, tmp_path: Path
) -> None:
    with pytest.raises(PlanRefused, match="generate them again"):
        judge(both, Policy.load(), Hospitals(tmp_path, both), pool, made[:-1])


# ------------------------------------------------------------------------------------------------------ folder


@pytest.fixture(scope="module")
def folder(both: TrainingPlan, judged: Judged, inputs: ReleaseInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "release"
    numbers = [one.number for one in judged.people]
    measured = {"ventricles": judged.measured}
    return write_dataset(out, both, EDITION, inputs.people, inputs.volumes, numbers=numbers, measured=measured)


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))


def test_images_are_named_as_bids_names_them(folder: Path, inputs: ReleaseInputs) -> None:
    for person, volume in zip(inputs.people, inputs.volumes, strict=True):
        name = f"{person.name}_space-MNI152NLin2009aAsym_desc-synthetic_{person.modality}"
        image = folder / person.name / "anat" / f"{name}.nii.gz"
        assert np.array_equal(read_volume(image)[0], volume[0].numpy())
        sidecar = json.loads(image.with_name(f"{name}.json").read_text())
        assert sidecar["SyntheticData"] is True
        assert sidecar["RequestedConditions"] == person.conditions | {"modality": person.modality}
        assert ("FLAIR" in sidecar["Description"]) == (person.modality == "FLAIR")
    t1w, flair = sorted((folder / "sub-syn0001" / "anat").glob("*.json"), reverse=True)
    assert json.loads(t1w.read_text())["Index"] == json.loads(flair.read_text())["Index"], "one person of the seed"


def test_the_raw_variant_says_synthetic_in_both_names(both: TrainingPlan, inputs: ReleaseInputs, tmp_path: Path) -> None:
    out = write_dataset(tmp_path / "r", both, EDITION, inputs.people, inputs.volumes, kind="raw")
    names = sorted(path.name for path in out.glob("sub-syn0001/anat/*.nii.gz"))
    assert names == ["sub-syn0001_rec-synthetic_FLAIR.nii.gz", "sub-syn0001_rec-synthetic_T1w.nii.gz"]
    assert 'layout.get(reconstruction="synthetic", suffix="FLAIR"' in (out / "README.md").read_text()


def test_the_table_has_one_row_per_person_and_says_who_has_which(folder: Path, judged: Judged) -> None:
    rows = table(folder / "participants.tsv")
    assert [row["participant_id"] for row in rows] == ["sub-syn0001", "sub-syn0002", "sub-syn0003"]
    assert [row["modality"] for row in rows] == ["T1w+FLAIR", "T1w+FLAIR", "T1w"]
    assert [row["ventricles_measured"] for row in rows] == [f"{judged.measured[place]:.2f}" for place in (0, 2, 4)]
    columns = json.loads((folder / "participants.json").read_text())
    assert set(columns["modality"]["Levels"]) == {"T1w", "T1w+FLAIR"}
    assert "on the synthetic T1w" in columns["ventricles_measured"]["Description"]
    about = json.loads((folder / "dataset_description.json").read_text())
    assert about["Name"] == "demo: synthetic T1-weighted and FLAIR brains"


def test_visits_are_in_their_table_once_though_each_has_two_images(both: TrainingPlan, made: Tensor, tmp_path: Path) -> None:
    person = Person("sub-syn0001", {"age": 60.0, "sex": "F", "modality": "T1w"})
    longer = [
        dataclasses.replace(person, session=f"ses-0{n + 1}", years=float(n), modality=modality)
        for n in range(2) for modality in BOTH
    ]  # fmt: skip
    measured = {"ventricles": [20.0, math.nan, 21.0, math.nan]}
    out = write_dataset(tmp_path / "r", both, EDITION, longer, made[:4], measured=measured)
    rows = table(out / "sub-syn0001" / "sub-syn0001_sessions.tsv")
    assert [(row["session_id"], row["ventricles_measured"]) for row in rows] == [("ses-01", "20.00"), ("ses-02", "21.00")]
    assert len(table(out / "participants.tsv")) == 1
    assert len(list(out.glob("sub-syn0001/ses-*/anat/*_FLAIR.nii.gz"))) == 2


def test_croissant_finds_every_image_of_each_modality(folder: Path) -> None:
    about = json.loads((folder / "croissant.json").read_text())
    _, *sets = about["distribution"]
    found = {one["@id"]: len(list(folder.glob(one["includes"]))) for one in sets}
    assert found == {"images": 3, "images-FLAIR": 2}
    assert "T1-weighted and FLAIR" in about["description"]
    assert "0.85, on FLAIR 0.55" in about["rai:dataPreprocessingProtocol"][0]


def test_the_card_says_which_modalities_and_how_they_belong_together(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for words in ("5 images of 3 synthetic people", "T1w and FLAIR of one person", 'suffix="FLAIR"', "T1w and FLAIR alone"):
        assert words in card


def test_the_certificate_says_what_was_not_measured(both: TrainingPlan, judged: Judged, plan: TrainingPlan) -> None:
    def said(about: TrainingPlan) -> dict[tuple[str, str], str]:
        found = list(statements(Known(about, EDITION, 5, "0" * 64, (), judged.gates, ())))
        assert len(found) == 47
        return {(section, title): text for section, title, text in found}

    assert "modalities T1w and FLAIR;" in said(both)["C", "Sites"]
    assert "tissues, ventricles and lesions were not" in said(both)["G", "Known failures"]
    assert "modality T1w;" in said(plan)["C", "Sites"]
    assert "FLAIR" not in said(plan)["C", "Sites"] + said(plan)["G", "Known failures"]


def test_the_bundle_takes_a_modality_only_where_there_is_a_choice(both: TrainingPlan, plan: TrainingPlan) -> None:
    model = load_prior(plan)
    one, several = (bundle_files(about, model, EDITION) for about in (plan, both))
    assert b"modality" not in one["generator/configs/inference.json"] + one["generator/docs/README.md"]
    config = json.loads(several["generator/configs/inference.json"])
    assert config["modality"] == "T1w"
    assert config["volumes"].endswith("@seed, @modality)")
    assert b"T1w or FLAIR, skull-stripped" in several["generator/configs/metadata.json"]
    assert b'modality="FLAIR"' in several["generator/docs/README.md"]


# ------------------------------------------------------------------------------------------------------ report


@pytest.fixture(scope="module")
def page(inputs: ReleaseInputs) -> str:
    return render(inputs)


def test_both_images_of_a_brain_are_in_one_picture_and_in_one_viewer(page: str) -> None:
    assert page.count('class="kind" data-kind="T1w"') == 3
    assert page.count('class="kind" data-kind="FLAIR"') == 2
    assert page.count("<option ") == 3, "one per brain"
    assert set(re.findall(r'data-person="(\d+)"', page)) == {"0", "1", "2"}
    assert set(re.findall(r"\.p(\d)\.v(\d) u\.FLAIR\{", page)) == {(k, v) for k in "012" for v in "01"}
    assert 'aria-label="axial slice, T1w above FLAIR"' in page
    assert "a lesion would outshine both" in page
    assert "sub-syn0002_FLAIR: axial, coronal and sagittal cut" in page
    assert not re.search(r'url\((?!"data:image/)', page)


def test_people_are_counted_and_images_by_modality(inputs: ReleaseInputs) -> None:
    numbers = json.loads(metrics_json(inputs))
    assert (numbers["images"], numbers["people"], numbers["modalities"]) == (5, 3, {"T1w": 3, "FLAIR": 2})
    assert sum(subgroups(inputs)["sex"].values()) == 3


def test_the_readme_picture_shows_both_below_each_other(made: Tensor, tmp_path: Path) -> None:
    brains = [made[place : place + 2, 0] for place in (0, 2)]
    for name, shown in (("both", brains), ("one", [brain[:1] for brain in brains]), ("mixed", [brains[0], brains[1][:1]])):
        hero_png(shown, tmp_path / f"{name}.png", PRESETS["tiny"], columns=2, rows=1, zoom=1)
    both, one, mixed = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("both", "one", "mixed"))
    assert both.shape[0] - 14 == 2 * (one.shape[0] - 14)
    middle, half = both.shape[1] // 2, both.shape[0] // 2
    assert both[half:, middle:].max() > 150
    assert mixed[half + 7 :, middle:].max() == 0, "who has no FLAIR has an empty place"
    assert np.array_equal(both[:, :middle], mixed[:, :middle])
