"""Whatever lies in a hospital's folder: each file is prepared or left out with one right line, and nothing is done twice."""

from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from braing3n_core.data.phantom import phantoms, write_bids
from braing3n_core.data.scans import columns_of, find_bids, find_listed
from braing3n_core.data.template import template
from braing3n_core.errors import DataRefused, UsageError
from braing3n_core.models.presets import PRESETS
from braing3n_core.plan import Hospital
from client.prepare import Options, prepare

TINY = PRESETS["tiny"]
ONE = Options(preset="tiny", jobs=1)
PEOPLE = 2


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bids") / "north"
    write_bids(folder, phantoms(TINY, PEOPLE, 1, Hospital(name="north")), TINY, PEOPLE)
    return folder


@pytest.fixture(scope="module")
def ready(master: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one whole run."""
    out = tmp_path_factory.mktemp("out")
    done = prepare(find_bids(master), out, ONE)
    assert (done.usable, done.excluded, done.computed, done.reused) == (PEOPLE, 0, PEOPLE, 0)
    return out


@pytest.fixture
def bids(master: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(master, tmp_path / "bids"))


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))


def scan_of(bids: Path, name: str = "sub-ph0001") -> Path:
    return bids / name / "anat" / f"{name}_T1w.nii.gz"


@pytest.mark.slow
def test_tables_and_pages_hold_every_scan(ready: Path) -> None:
    table = rows(ready / "morphometry.tsv")
    assert list(table[0]) == [
        "participant_id", "session", "modality", "brain_ml", "gm_ml", "wm_ml", "csf_ml", "ventricles_ml", "lesion_ml",
    ]  # fmt: skip
    assert [row["participant_id"] for row in table] == ["sub-ph0001", "sub-ph0002"]
    for row in table:
        assert (row["session"], row["modality"]) == ("n/a", "T1w")
        assert float(row["brain_ml"]) > float(row["gm_ml"]) > float(row["ventricles_ml"]) > 0
        parts = sum(float(row[name]) for name in ("gm_ml", "wm_ml", "ventricles_ml"))
        assert parts == pytest.approx(float(row["brain_ml"]), abs=0.1)
    assert rows(ready / "excluded.tsv") == []
    index = (ready / "qc" / "index.html").read_text()
    for page in (ready / "qc" / "scans").glob("*.html"):
        assert f'href="scans/{page.name}"' in index
        assert base64.b64encode(page.with_suffix(".png").read_bytes()).decode() in index
        assert "measures" in page.read_text()


@pytest.mark.slow
def test_pages_need_nothing_from_outside(ready: Path) -> None:
    for page in (ready / "qc").rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?\s*(?:https?:)?//""", text)
        assert "default-src 'none'" in text


@pytest.mark.slow
def test_what_stays_at_the_site_is_its_owners_alone(ready: Path) -> None:
    for folder in (ready / "cache", ready / "qc", ready / "qc" / "scans"):
        assert folder.stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_second_run_computes_nothing_and_imports_nothing_heavy(master: Path, ready: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ready / "cache").iterdir()}
    program = (
        "import sys; from pathlib import Path; from braing3n_core.data.scans import find_bids\n"
        "from client.prepare import Options, prepare\n"
        f"done = prepare(find_bids(Path({str(master)!r})), Path({str(ready)!r}), Options('tiny', jobs=1))\n"
        "print(done.computed, done.reused, sorted({'torch', 'monai', 'SimpleITK', 'nilearn', 'nibabel'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert found.stdout == f"0 {PEOPLE} []\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_a_table_names_the_same_scans(bids: Path, ready: Path, tmp_path: Path) -> None:
    """The cache goes by content, so a hospital without BIDS gets what was computed with it."""
    shutil.copytree(ready, tmp_path / "out")
    for place, name in enumerate(("sub-ph0001", "sub-ph0002")):
        shutil.move(scan_of(bids, name), bids / f"mri_{place}.nii.gz")
    (tmp_path / "secret.nii.gz").touch()
    table = tmp_path / "list.csv"
    table.write_text(
        'id;path;visit;"seq"\nA1;mri_0.nii.gz;;T1w\nA2;mri_1.nii.gz;2;t1w\nA3;../secret.nii.gz;1;T1w\nA4;mri_0.nii.gz;1;T1w\n'
        "../A5;mri_1.nii.gz;1;T1w\nA6;mri_1.nii.gz;1;PET\nA7;;1;T1w\n"
    )
    found = find_listed(bids, table, columns_of("file=path,participant=id,session=visit,modality=seq"))
    prepare(found, tmp_path / "out", ONE)
    assert [(r["participant_id"], r["session"]) for r in rows(tmp_path / "out" / "morphometry.tsv")] == [
        ("sub-A1", "n/a"), ("sub-A2", "ses-2"),
    ]  # fmt: skip
    reasons = " | ".join(row["reason"] for row in rows(tmp_path / "out" / "excluded.tsv"))
    for words in ("out of the data folder", "another row names this file", "'PET'", "names no file"):
        assert words in reasons


@pytest.mark.parametrize("words", ["", "file=path", "file=path,patient=id", "file=,participant=id", "nonsense"])
def test_a_column_map_that_says_too_little_is_refused(words: str) -> None:
    with pytest.raises(UsageError, match="write file=COLUMN"):
        columns_of(words)


def header_says(path: Path, **fields: object) -> None:
    """The phantom with its header's bytes changed."""
    image = nib.load(path)
    content = bytearray(nib.Nifti1Image(np.asarray(image.dataobj), image.affine).to_bytes())
    for place, (kind, values) in fields.items():
        raw = np.array(values, kind).tobytes()
        start = int(place.removeprefix("at"))
        content[start : start + len(raw)] = raw
    path.write_bytes(gzip.compress(bytes(content), 1, mtime=0))


def image_of(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> None:
    nib.save(nib.Nifti1Image(values, template(TINY).affine if affine is None else affine), path)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def rgb(path: Path) -> None:
    image_of(path, np.zeros((20, 20, 20), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])))


def poisoned(value: float) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        values = np.array(nib.load(path).get_fdata(), np.float32)
        values[20, 20, 20] = value
        image_of(path, values)

    return spoil


def cut(kept: float) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])


def bomb(path: Path) -> None:
    with gzip.open(path, "wb", 1) as stream:
        stream.write(nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4)).to_bytes())
        for _ in range(64):
            stream.write(bytes(2**22))


def link(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return make


def replaced_by(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def swap(path: Path) -> None:
        path.unlink()
        make(path)

    return swap


def renamed(name: str) -> Callable[[Path], None]:
    return lambda path: path.rename(path.with_name(name))


CRIMES: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (lambda p: p.write_bytes(b""), "damaged, truncated or not NIfTI"),
    "cut in the header": (cut(0.0005), "damaged, truncated or not NIfTI"),
    "cut in half": (cut(0.5), "damaged, truncated or not NIfTI"),
    "cut at the end": (cut(0.9999), "damaged, truncated or not NIfTI"),
    "web page": (lambda p: p.write_text("<html>404</html>"), "damaged, truncated or not NIfTI"),
    "random bytes": (lambda p: p.write_bytes(rng().bytes(50_000)), "damaged, truncated or not NIfTI"),
    "gzip of nothing": (lambda p: p.write_bytes(gzip.compress(b"")), "damaged, truncated or not NIfTI"),
    "bomb": (bomb, "more than its header says"),
    "wrong magic": (lambda p: header_says(p, at344=("S4", b"abc")), "not NIfTI"),
    "voxels at a gigabyte": (lambda p: header_says(p, at108=("<f4", 1e9)), "voxels start at byte"),
    "voxels nowhere": (lambda p: header_says(p, at108=("<f4", np.nan)), "voxels start at byte"),
    "huge sides, tiny body": (lambda p: header_says(p, at42=("<i2", [1000, 1000, 1000])), "absurd dimensions"),
    "more than its body": (lambda p: header_says(p, at42=("<i2", [300, 300, 300])), "truncated"),
    "zero side": (lambda p: header_says(p, at42=("<i2", [48, 0, 48])), "absurd dimensions"),
    "negative side": (lambda p: header_says(p, at42=("<i2", [48, -48, 48])), "absurd dimensions"),
    "no dimensions": (lambda p: header_says(p, at40=("<i2", 0)), "D "),
    "nine dimensions": (lambda p: header_says(p, at40=("<i2", 9)), "damaged, truncated or not NIfTI|-D"),
    "unknown data type": (lambda p: header_says(p, at70=("<i2", 9999)), "damaged, truncated or not NIfTI"),
    "complex": (lambda p: image_of(p, np.ones((20, 20, 20), np.complex64)), "not one number per voxel"),
    "colour": (rgb, "not one number per voxel"),
    "4-D": (lambda p: image_of(p, np.ones((20, 20, 20, 5), np.float32)), "4-D"),
    "2-D": (lambda p: image_of(p, np.ones((20, 20), np.float32)), "2-D"),
    "one slice": (lambda p: image_of(p, rng().random((48, 48, 1), np.float32)), "absurd dimensions"),
    "NaN": (poisoned(np.nan), "NaN or infinite"),
    "infinite": (poisoned(np.inf), "NaN or infinite"),
    "all zero": (lambda p: image_of(p, np.zeros((48, 48, 48), np.float32)), "zero everywhere"),
    "all one": (lambda p: image_of(p, np.ones((48, 48, 48), np.float32)), "one value everywhere"),
    "all negative": (lambda p: image_of(p, -rng().random((48, 48, 48), np.float32) - 1), "nothing in the middle"),
    "noise": (lambda p: image_of(p, rng().random((48, 48, 48), np.float32)), "did not register|no brain"),
    "a box": (lambda p: image_of(p, np.pad(np.ones((40, 40, 40), np.float32), 4)), "did not register|no brain"),
    "flat affine": (lambda p: header_says(p, at252=("<i2", 0), at312=("<f4", [0, 0, 0, 0])), "singular affine"),
    "affine of NaN": (lambda p: header_says(p, at252=("<i2", 0), at280=("<f4", [np.nan] * 4)), "singular affine"),
    "negative spacing": (lambda p: header_says(p, at252=("<i2", [0, 0]), at80=("<f4", [-4, -4, -4])), "left and right"),
    "voxels of a metre": (lambda p: image_of(p, rng().random((20, 20, 20)), np.diag([1e3, 1e3, 1e3, 1])), "absurd dimensions"),
    "no orientation": (lambda p: header_says(p, at252=("<i2", [0, 0])), "left and right are unknown"),
    "link out": (link("/etc/hostname"), "link out of the data folder"),
    "link to nothing": (link("nowhere.nii.gz"), "link to nothing"),
    "link to itself": (lambda p: link(p.name)(p), "link to nothing"),
    "folder": (replaced_by(Path.mkdir), "no ordinary file"),
    "pipe": (replaced_by(lambda p: os.mkfifo(p)), "no ordinary file"),
    "name with a line break": (renamed("sub-ph0001_acq-a\nb_T1w.nii.gz"), "not a BIDS name"),
    "name with a way up": (renamed("sub-ph0001_acq-..%2f..%2fetc_T1w.nii.gz"), "not a BIDS name"),
    "name with a script": (renamed("sub-ph0001_<script>alert(1)<_T1w.nii.gz"), "not a BIDS name"),
    "name of another": (renamed("sub-ph0002_run-9_T1w.nii.gz"), "another patient"),
}


@pytest.mark.slow
def test_a_folder_of_broken_files_is_survived_with_one_right_line_each(master: Path, tmp_path: Path) -> None:
    bids, expected = tmp_path / "bids", {}
    good = shutil.copytree(master / "sub-ph0002", bids / "sub-ph0002")
    for place, (crime, words) in enumerate(CRIMES.values()):
        name = f"sub-bad{place:02d}"
        anat = bids / name / "anat"
        anat.mkdir(parents=True)
        path = anat / f"{name}_T1w.nii.gz"
        shutil.copy(scan_of(master), path)
        with path.open("ab") as file:                        # a member of its own, so that no two are the same scan
            file.write(gzip.compress(bytes(place)))
        crime(path)
        expected[name] = words
    assert len(expected) >= 40
    assert good.is_dir()
    done = prepare(find_bids(bids), tmp_path / "out", Options(preset="tiny", jobs=2))
    assert [row["participant_id"] for row in rows(tmp_path / "out" / "morphometry.tsv")] == ["sub-ph0002"]
    table = rows(tmp_path / "out" / "excluded.tsv")
    assert len(table) == done.excluded == len(expected)
    wrong = []
    for row in table:
        name = row["file"].split("/")[0]
        if not (re.search(expected.pop(name), row["reason"]) and row["remedy"]):
            wrong.append(row)
    assert not wrong, wrong
    assert not expected
    assert not (tmp_path / "out" / "prepare.log").exists(), (tmp_path / "out" / "prepare.log").read_text()
    assert "<script>alert" not in (tmp_path / "out" / "qc" / "index.html").read_text()


@pytest.mark.slow
def test_nothing_usable_is_refused_and_still_told(bids: Path, tmp_path: Path) -> None:
    for name in ("sub-ph0001", "sub-ph0002"):
        scan_of(bids, name).write_bytes(b"")
    (bids / "sub-ph0002" / "anat" / "sub-ph0002_T1w.nii.gz").write_bytes(b"x")
    with pytest.raises(DataRefused, match="not one scan can be used"):
        prepare(find_bids(bids), tmp_path / "out", ONE)
    assert len(rows(tmp_path / "out" / "excluded.tsv")) == 2
    assert "Left out" in (tmp_path / "out" / "qc" / "index.html").read_text()


@pytest.mark.slow
def test_a_scan_under_two_names_is_taken_once(bids: Path, ready: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(ready, tmp_path / "out"))
    shutil.copy(scan_of(bids), scan_of(bids, "sub-ph0002"))
    done = prepare(find_bids(bids), out, ONE)
    assert (done.usable, done.excluded, done.computed) == (1, 1, 0)
    assert "the same scan as sub-ph0001" in rows(out / "excluded.tsv")[0]["reason"]


@pytest.mark.slow
def test_killed_at_any_moment_it_never_leaves_a_wrong_entry(master: Path, ready: Path, tmp_path: Path) -> None:
    """SIGKILL to the command and its processes at random points; what a later run finishes equals what was never disturbed."""
    out, dice = tmp_path / "out", random.Random(5)
    program = [sys.executable, "-c", "from client.cli import main; main()"]
    command = [*program, "prepare", "--data", str(master), "--out", str(out), "--preset", "tiny"]
    for _ in range(3):
        started = subprocess.Popen([*command, "--jobs", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_work(out, started, dice.uniform(0, 2))
        children = subprocess.run(["pgrep", "-P", str(started.pid)], check=False, capture_output=True, text=True).stdout.split()
        for pid in (started.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):    # a process ends by itself as soon as its command is dead
                os.kill(pid, signal.SIGKILL)
        started.wait()
    done = prepare(find_bids(master), out, ONE)
    assert done.usable == PEOPLE
    assert (out / "morphometry.tsv").read_text() == (ready / "morphometry.tsv").read_text()
    for entry in (ready / "cache").glob("*.safetensors"):
        assert (out / "cache" / entry.name).read_bytes() == entry.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_mask_command_ends_with_the_run_that_asked_for_it(master: Path, tmp_path: Path, how: signal.Signals) -> None:
    script, told = tmp_path / "mask.py", tmp_path / "pid"
    script.write_text(f"import os, pathlib, time\npathlib.Path({str(told)!r}).write_text(str(os.getpid()))\ntime.sleep(600)\n")
    mask = f"{sys.executable} {script} {{scan}} {{mask}}"
    program = [sys.executable, "-c", "from client.cli import main; main()"]
    words = ["prepare", "--data", str(master), "--out", str(tmp_path / "out"), "--jobs", "1", "--brain-mask-command", mask]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it, and hands that on
    with subprocess.Popen([*program, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as started:
        _until(lambda: told.exists() and told.read_text() != "")
        started.send_signal(how)
    _until(lambda: not _lives(int(told.read_text())))


def _lives(pid: int) -> bool:
    """Whether it runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _wait_for_work(out: Path, started: subprocess.Popen[bytes], more_s: float) -> None:
    """Until the first page is there or the run is over, and then a little longer."""
    while not list((out / "qc" / "scans").glob("*.html")) and started.poll() is None:
        time.sleep(0.02)
    time.sleep(more_s)
