"""The table tells a generator that listens from one that is deaf to one variable, and scores the reader itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from braing3n_core.errors import UsageError
from braing3n_core.prior import SHIPPED, read_prior
from simulations import control


@pytest.mark.slow
def test_a_generator_that_is_deaf_to_sex_is_found_out_by_the_classifier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_FITTED", 60)
    model = read_prior(SHIPPED / "tiny.safetensors")
    place = [variable.name for variable in model.variables].index("sex")
    with torch.no_grad():                                    # both levels read as one
        levels = model.generator.conditions.known[place].weight
        levels.copy_(levels[:1].expand(2, -1))
    found = control.controls(model, 16, 2, 1.0, lambda _: None)
    table = {row.variable: row for row in found}
    assert set(table) == {"age", "sex", "diagnosis", "ventricles", "lesions"}, "modality has one level"
    sex, ventricles, age = (table[name] for name in ("sex", "ventricles", "age"))
    assert sex.people is not None
    assert sex.people > 0.65, "the classifier reads people"
    assert sex.alone < 0.75
    assert (ventricles.reader, ventricles.people, ventricles.score) == ("morphometry", None, "r")
    assert ventricles.alone > 0.8
    assert ventricles.slope is not None
    assert 0.5 < ventricles.slope < 1.5
    assert len(age.asked) == len(age.read) == 16
    assert list(age.asked) == sorted(age.asked)
    control.write(found, tmp_path / "control.json")
    assert len(json.loads((tmp_path / "control.json").read_text())) == len(found) == len(control.told(found)) - 2
    assert control.picture(found).startswith(b"\x89PNG")


def test_weights_are_read_from_words_and_others_are_refused() -> None:
    assert control.weights(["ventricles=1.5", "age=2"]) == {"ventricles": 1.5, "age": 2.0}
    for wrong in ("ventricles", "age=much"):
        with pytest.raises(UsageError, match="variable=NUMBER"):
            control.weights([wrong])
