"""The whole road through a real Flower: what a run leaves behind, its exit code, and nothing still running."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from braing3n_core.flower_process import free_port
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import Settings, overridden
from privacy.accountant import epsilon_alone
from privacy.ledger import Ledger
from server.conduct import claim
from simulations import flower

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
SMOKE = ROOT / "simulations" / "recipes" / "smoke.toml"
PLAN = TrainingPlan.load(SMOKE)
SITES = [site.name for site in PLAN.sites]


def sim(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "braing3n-sim", *map(str, words)], capture_output=True, text=True, timeout=600, check=False)


def carrying(mark: str) -> list[int]:
    """Processes, ours not counted, with `mark` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
    return found


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every process a run starts inherits this mark; none may outlive the command."""
    mark = f"BRAING3N_TEST={time.monotonic_ns()}"
    monkeypatch.setenv(*mark.split("=", 1))
    yield
    assert carrying(mark) == []


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    out = tmp_path_factory.mktemp("out") / "smoke"
    return out, sim("run", SMOKE, "--out", out)


def test_a_recipe_ends_with_a_release_and_says_where_it_is(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = smoke
    assert done.returncode == 0, done.stderr
    assert str(out / "release") in done.stdout
    assert (out / "release" / "docs" / "report.html").exists()
    assert len(list((out / "release").glob("sub-*/anat/*.nii.gz"))) == 4
    assert json.loads((out / "run.json").read_text())["exit_code"] == 0
    assert json.loads((out / "plan.json").read_text()) == json.loads(PLAN.canonical())
    for line in ("artefacts: ", "site-a is ready", "generator: round 2 of 2, 2 of 2 sites replied", "release: "):
        assert line in done.stderr


def test_the_release_is_signed_and_a_stranger_can_check_it(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, _ = smoke
    words = [BIN / "braing3n-admin", "verify", out / "release", "--key", out / "release.pub"]
    checked = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=300, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "2 of 2 sites" in checked.stdout
    for name in ("model.sig", "croissant.json", "SHA256SUMS", "attestations.intoto.jsonl"):
        assert (out / "release" / name).exists()


def test_the_epsilon_that_is_printed_is_the_one_in_the_ledgers(smoke: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    out, done = smoke
    summary = json.loads((out / "summary.json").read_text())
    for row in summary["privacy"]:
        with Ledger(out / "sites" / row["site"] / "ledger.jsonl", PLAN.privacy.delta) as ledger:
            assert row["epsilon"] == ledger.epsilon
            assert len(ledger.events) == sum(stage.rounds for stage in PLAN.stages) + PLAN.privacy.vote_rounds
        assert 0 < row["epsilon"] <= PLAN.privacy.epsilon
        assert f"{row['site']:<12} epsilon {row['epsilon']:.3g} of 8 agreed" in done.stdout
    assert [row["site"] for row in summary["privacy"]] == SITES


def test_the_summary_holds_every_quality_number_with_its_unit_and_baseline(
    smoke: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = smoke
    rows = json.loads((out / "summary.json").read_text())["quality"]
    assert len(rows) >= 3
    for row in rows[:3]:
        assert row["unit"]
        assert row["baseline_name"]
        assert all(math.isfinite(row[name]) for name in ("baseline", "prior", "private"))


def test_a_second_study_on_the_same_patients_finds_the_budget_spent(
    smoke: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    out = tmp_path / "second"
    shutil.copytree(smoke[0], out)
    ledgers = {site: (out / "sites" / site / "ledger.jsonl").read_bytes() for site in SITES}
    for name in ("plan.json", "run.json", "rounds.jsonl", "summary.json"):
        (out / name).unlink()
    shutil.rmtree(out / "checkpoints")
    recipe = tmp_path / "second.toml"
    recipe.write_text(SMOKE.read_text().replace("\nseed = 1\n", "\nseed = 2\n", 1))
    done = sim("run", recipe, "--out", out)
    assert done.returncode == 5, done.stderr
    assert "have no budget for it; agree a larger epsilon or plan fewer rounds" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert ledgers == {site: (out / "sites" / site / "ledger.jsonl").read_bytes() for site in SITES}
    assert not (out / "summary.json").exists()
    assert json.loads((out / "run.json").read_text())["exit_code"] == 5


def test_ctrl_c_ends_everything_and_the_same_command_goes_on(tmp_path: Path) -> None:
    out, words = tmp_path / "out", [BIN / "braing3n-sim", "run", SMOKE, "--rounds", "6", "--out"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores it, and hands that on
    first = subprocess.Popen([*words, out], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 200
    while not list(out.glob("checkpoints/*")) and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(first.pid, signal.SIGINT)
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert "interrupted; run again with the same output folder" in said
    assert "Traceback" not in said
    again: list[str] = []
    plan = overridden(PLAN, rounds=6)
    assert flower.run(Settings(plan, out).config(), out, len(SITES), again.append) == 0, again
    assert any(line.startswith("taking up the run at") for line in again)
    for site in SITES:
        with Ledger(out / "sites" / site / "ledger.jsonl", plan.privacy.delta) as ledger:
            # A round that was cut short takes its own reservation up again: nothing is charged twice.
            assert ledger.epsilon <= plan.privacy.epsilon


def test_a_node_that_is_killed_mid_round_does_not_stop_the_others(tmp_path: Path) -> None:
    out, plan, said = tmp_path / "out", overridden(PLAN, rounds=4), list[str]()
    claim(plan, out)

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("decoder: round") or list(out.glob("checkpoints/*")):
            kill_a_worker()

    killed: list[int] = []

    def kill_a_worker() -> None:
        for process in carrying(os.environ["BRAING3N_TEST"]):
            if not killed and b"ClientAppActor" in command(process):
                killed.append(process)
                os.kill(process, signal.SIGKILL)

    assert flower.run(Settings(plan, out).config(), out, len(SITES), say) == 0, said
    assert killed
    assert (out / "release" / "docs" / "report.html").exists()


def test_plain_flwr_run_makes_the_same_release(tmp_path: Path) -> None:
    ports = {"FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()), "FLWR_LOCAL_CONTROL_API_PORT": str(free_port())}
    environment = os.environ | ports | {"FLWR_HOME": str(tmp_path / "home"), "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    settings = f'plan="simulations/recipes/smoke.toml" out-dir="{tmp_path / "out"}"'
    try:
        done = subprocess.run(
            [BIN / "flwr", "run", ".", "--stream", "--run-config", settings],
            cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
    finally:
        for process in carrying(str(tmp_path / "home")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(1)
    assert done.returncode == 0, done.stdout
    assert f"artefacts: {tmp_path / 'out'}" in done.stdout
    assert "No additional application dependencies needed installation" in done.stdout
    assert json.loads((tmp_path / "out" / "run.json").read_text())["exit_code"] == 0
    assert (tmp_path / "out" / "release" / "docs" / "report.html").exists()


def test_secure_sums_end_with_a_release_that_states_both_guarantees(tmp_path: Path) -> None:
    """Three sites behind Flower; the server's own release, so that what it saw is held against the sites' ledgers."""
    plan, out = TrainingPlan.load(SMOKE.with_name("secure_sum.toml")), tmp_path / "out"
    claim(plan, out)
    assert flower.run(Settings(plan, out).config(), out, len(plan.sites), lambda line: None) == 0
    rows = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    assert [row["messages"] for row in rows] == [2 * 5 * 3] * 4
    stated = json.loads((out / "release" / "docs" / "privacy_certificate.json").read_text())
    assert stated["mechanism"] == "secure-sum"
    for site in plan.sites:
        with Ledger(out / "sites" / site.name / "ledger.jsonl", plan.privacy.delta) as ledger:
            assert len(ledger.events) == sum(stage.rounds for stage in plan.stages)
            assert stated["epsilon"] == pytest.approx(ledger.epsilon)
            assert stated["fallback"] == pytest.approx(epsilon_alone(ledger.events, plan.privacy.delta))
            assert ledger.epsilon <= 5 < stated["fallback"] <= 10


def command(process: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""
