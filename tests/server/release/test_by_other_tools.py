"""What a stranger can do without a line of ours: validate, load and verify a release with other people's programs.

The programs are looked for on PATH and are no dependency of the project; a test whose program is absent says how to get it.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from braing3n_core.manifest import SIGNATURE
from braing3n_core.plan import TrainingPlan
from privacy.signing import pae
from server.release.cohort import draw
from server.release.dataset import write_dataset
from server.release.tables import BidsType
from tests.server.release.conftest import Signed
from tests.server.release.hospitals import EDITION, copied


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not on PATH: pip install {package} into an environment of its own")
    return found


def ran(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)


def test_the_bids_validator_has_no_error_to_report(signed: Signed) -> None:
    done = ran(program("bids-validator-deno", "bids-validator-deno"), signed.release)
    assert done.returncode == 0, done.stdout


def test_the_raw_variant_passes_the_bids_validator_too(plan: TrainingPlan, volumes: Tensor, tmp_path: Path) -> None:
    tool = program("bids-validator-deno", "bids-validator-deno")
    out = write_dataset(tmp_path / "raw", plan, EDITION, draw(plan.release, plan.variables), volumes, kind="raw")
    done = ran(tool, out)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", ["derivative", "raw"])
def test_t1w_and_flair_pass_the_bids_validator_and_croissant_s(
    kind: BidsType, plan: TrainingPlan, volumes: Tensor, tmp_path: Path
) -> None:
    tool, croissant = program("bids-validator-deno", "bids-validator-deno"), program("mlcroissant", "mlcroissant")
    t1w, visits = draw(plan.release, plan.variables)[0], [("ses-01", 0.0), ("ses-02", 1.5)]
    people = [replace(t1w, session=name, years=at, modality=what) for name, at in visits for what in ("T1w", "FLAIR")]
    measured = {"ventricles": [30.0, math.nan, 31.0, math.nan]}
    out = write_dataset(tmp_path / kind, plan, EDITION, people, volumes[:4], measured=measured, kind=kind)
    done = ran(tool, out)
    assert done.returncode == 0, done.stdout
    done = ran(croissant, "validate", "--jsonld", "croissant.json", cwd=out)
    assert done.returncode == 0, done.stderr


def test_croissant_validates_and_its_table_loads(signed: Signed) -> None:
    tool = program("mlcroissant", "mlcroissant")
    done = ran(tool, "validate", "--jsonld", "croissant.json", cwd=signed.release)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    loaded = ran(tool, "load", "--jsonld", "croissant.json", "--record_set", "participants", cwd=signed.release)
    assert loaded.returncode == 0, loaded.stderr
    assert "sub-syn0001" in loaded.stdout + loaded.stderr


@pytest.mark.parametrize("crime", ["none", "flip", "add", "remove", "rename"])
def test_model_signing_verifies_it_and_notices_every_change(signed: Signed, tmp_path: Path, crime: str) -> None:
    tool, release = program("model_signing", "model-signing pyOpenSSL"), copied(signed.release, tmp_path)
    image = next(release.glob("sub-*/anat/*.nii.gz"))
    match crime:
        case "flip":
            raw = bytearray(image.read_bytes())
            raw[100] ^= 1
            image.write_bytes(bytes(raw))
        case "add":
            (release / "new.txt").write_text("x")
        case "remove":
            image.unlink()
        case "rename":
            image.rename(image.with_name("other.nii.gz"))
    done = ran(tool, "verify", "key", release, "--signature", release / SIGNATURE, "--public_key", signed.public)
    assert done.returncode == (0 if crime == "none" else 1), done.stdout + done.stderr


def test_openssl_verifies_the_signature(signed: Signed, tmp_path: Path) -> None:
    tool = program("openssl", "openssl")
    envelope = json.loads((signed.release / SIGNATURE).read_text())["dsseEnvelope"]
    (tmp_path / "signed.bin").write_bytes(pae(envelope["payloadType"], base64.b64decode(envelope["payload"])))
    (tmp_path / "signature.bin").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    words = ("dgst", "-sha256", "-verify", signed.public, "-signature", tmp_path / "signature.bin", tmp_path / "signed.bin")
    assert ran(tool, *words).stdout.strip() == "Verified OK"


def test_pybids_finds_every_image_by_the_line_in_the_readme(signed: Signed) -> None:
    python = Path(program("pybids", "pybids")).with_name("python")
    card = (signed.release / "README.md").read_text()
    code = card.split("```python\n")[1].split("```")[0] + "print(len(images))"
    done = ran(python, "-W", "ignore", "-c", code, cwd=signed.release)
    assert done.stdout.strip() == "6", done.stderr
