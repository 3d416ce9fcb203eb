from __future__ import annotations

import io
import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from braing3n_core.models.presets import PRESETS
from server.release.inputs import Control, SitePrivacy
from server.release.mosaic import PLANES, difference, frame_of, hero_png, jpeg, plane, sheet, three_planes
from server.release.plots import DARK, LIGHT, budget_png, control_png, control_r

PRESET = PRESETS["tiny"]
FRAME = frame_of(PRESET)


def test_left_is_never_shown_on_the_right_nor_up_down() -> None:
    box = np.zeros((5, 6, 7), np.float32)
    box[4, 5, 6] = 1                                         # right, front, top
    assert plane(box, "axial", 6)[0, 4] == 1, "front up, right on the right"
    assert plane(box, "coronal", 5)[0, 4] == 1, "top up, right on the right"
    assert plane(box, "sagittal", 4)[0, 5] == 1, "top up, front on the right"
    with pytest.raises(ValueError, match="no plane"):
        plane(box, "oblique", 0)


def test_the_frame_cuts_through_the_ventricles_and_keeps_the_brain(volumes: Tensor) -> None:
    whole, kept = float(volumes[0].sum()), float(FRAME.crop(volumes[0]).sum())
    assert kept == pytest.approx(whole, rel=1e-3)
    assert all(0 < cut < side for cut, side in zip(FRAME.cuts, FRAME.sides, strict=True))


def test_every_slice_is_on_the_sheet_where_the_page_looks_for_it(volumes: Tensor) -> None:
    for name, axis in zip(PLANES, (2, 1, 0), strict=True):
        page = sheet(volumes[0], FRAME, name, 1)
        image = np.asarray(Image.open(io.BytesIO(page.jpeg)), np.float32) / 255
        assert page.slices == FRAME.sides[axis]
        assert image.shape == (page.rows * page.height, page.columns * page.width)
        index = page.slices // 2
        top, left = index // page.columns * page.height, index % page.columns * page.width
        shown = image[top : top + page.height, left : left + page.width]
        meant = plane(FRAME.crop(volumes[0]), name, index).clip(0, 1)
        assert np.abs(shown - meant).mean() < 0.01


def test_pictures_are_the_same_bytes_each_time_and_never_out_of_range(volumes: Tensor) -> None:
    picture = three_planes(volumes[0], FRAME, 3)
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1
    assert jpeg(picture) == jpeg(three_planes(volumes[0], FRAME, 3))


def test_no_change_is_black_and_darker_is_blue(volumes: Tensor) -> None:
    assert int(difference(volumes[0], volumes[0], FRAME, "axial", 2).max()) == 0
    darker = difference(volumes[0] - 0.2, volumes[0], FRAME, "axial", 2).astype(int)
    assert (darker[..., 2] > darker[..., 0]).all()


def test_the_readme_picture_has_room_for_everybody(volumes: Tensor, tmp_path: Path) -> None:
    hero_png(volumes[:5], tmp_path / "hero.png", PRESET, columns=2, rows=3, zoom=2)
    image = np.asarray(Image.open(tmp_path / "hero.png"))
    third = image.shape[0] // 3
    assert image[:third, :].max() > 150
    assert image[-third:, : image.shape[1] // 2].max() > 150
    assert image[-third + 14 :, image.shape[1] // 2 + 7 :].max() == 0, "the sixth place is empty and black"


def row(stage: str, **epsilon: object) -> dict[str, object]:
    return {"stage": stage, "round": 1, "epsilon": epsilon}


def test_a_round_without_a_number_is_left_out_and_none_at_all_is_no_chart() -> None:
    spent = [SitePrivacy("a", 2.0, 8.0, 1e-4, 2.5, ())]
    assert budget_png([], spent, LIGHT) is None
    assert budget_png([row("decoder", a="infinite"), {"stage": "decoder"}], spent, LIGHT) is None
    drawn = budget_png([row("decoder", a=1.0), row("generator", a=2.0, b=math.nan)], spent, DARK)
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")
    assert drawn == budget_png([row("decoder", a=1.0), row("generator", a=2.0, b=math.nan)], spent, DARK)


def test_control_without_meaning_has_no_r() -> None:
    assert control_r(Control("ventricles", "ml", (1.0, 2.0, 3.0), (2.0, 4.0, 6.0))) == pytest.approx(1)
    flat = Control("ventricles", "ml", (30.0, 30.0, 30.0), (1.0, 2.0, 3.0))
    assert control_r(flat) is None
    assert control_png(flat, LIGHT) is not None
    assert control_png(Control("ventricles", "ml", (30.0, 31.0), (1.0, 2.0)), LIGHT) is None


def test_no_global_state_of_matplotlib_is_used() -> None:
    before = dict(matplotlib.rcParams)
    control_png(Control("ventricles", "ml", (1.0, 2.0, 3.0), (2.0, 4.0, 7.0)), LIGHT)
    assert dict(matplotlib.rcParams) == before
    sources = (Path(__file__).parents[3] / "server/release").glob("*.py")
    assert not any("pyplot" in source.read_text(encoding="utf-8") for source in sources)
