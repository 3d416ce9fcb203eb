"""A release in steps: candidates that a stopped call finishes to the same bytes, the sites' files in, a signed folder out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from braing3n_core.candidate_files import read_candidates
from braing3n_core.errors import Braing3nError, GateBlocked, IntegrityError, PlanRefused
from braing3n_core.plan import TrainingPlan
from braing3n_core.prior import load_prior
from braing3n_core.state import save
from client.attest import Check
from client.release import approve_release, sign_ledger
from privacy.signing import SigningKey
from server.release import stages
from server.release.policy import Policy
from server.release.seal import seal
from server.release.stages import build, gate, generate_candidates
from server.release.verify import verify
from tests.server.release.hospitals import Hospitals, folder_of

POLICY = Policy.load()
STRICT = Policy.read(POLICY.raw.replace(b"most_similar = 0.97", b"most_similar = 0.01"))


@pytest.fixture(scope="module")
def run(voting: TrainingPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: the untouched prior stands for a trained model."""
    out = tmp_path_factory.mktemp("run")
    (out / "plan.json").write_text(voting.canonical())
    save(out / "model.safetensors", load_prior(voting).state_dict(), {"plan": voting.digest})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "PART", 8)
        generate_candidates(out, POLICY, lambda text: None)
    return out


@pytest.fixture(scope="module")
def words(run: Path, voting: TrainingPlan) -> tuple[Hospitals, list[Path], list[Path]]:
    """What two sites sent: votes against candidate 1, and their ledgers."""
    hospitals, made = Hospitals(run, voting), read_candidates(run / "candidates")
    hospitals.vote(made.volumes, made.threshold)
    votes, ledgers = [], []
    for site, key in hospitals.keys.items():
        bits = f"0{int(site == 'site-a')}{'0' * (len(made.volumes) - 2)}"
        header = {"kind": "vote", "site": site, "candidates": made.digest, "bits": bits}
        votes.append(run / f"{site}.vote.json")
        votes[-1].write_text(json.dumps(header))
        ledgers.append(run / f"{site}.ledger.json")
        sign_ledger(folder_of(run, site), site, voting.digest, key, ledgers[-1])
    return hospitals, votes, ledgers


def test_a_stopped_call_goes_on_to_the_same_bytes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_candidates(run / "candidates")
    assert len(before.volumes) == 14
    (run / "candidates" / "part-000008.safetensors").unlink()
    with pytest.raises(IntegrityError, match="does not hold all its candidates"):
        read_candidates(run / "candidates")
    monkeypatch.setattr(stages, "PART", 8)
    told: list[str] = []
    generate_candidates(run, POLICY, told.append)
    assert told == ["candidates: 14 of 14"], "the part that was there is not made again"
    assert read_candidates(run / "candidates").digest == before.digest


@pytest.mark.slow
def test_the_steps_end_with_a_release_that_verifies(
    run: Path, words: tuple[Hospitals, list[Path], list[Path]], tmp_path: Path
) -> None:
    hospitals, votes, ledgers = words
    release, key, approvals = build(run, POLICY, None, votes, ledgers), SigningKey.generate(), []
    for site, its in hospitals.keys.items():
        out = tmp_path / f"{site}.json"
        approve_release(release, folder_of(run, site), site, its, Check("data steward", 6, "acceptable"), out)
        approvals.append(json.loads(out.read_text()))
    seal(release, key, approvals)
    assert "2 of 2 sites" in verify(release, key.public).steps[7][2]
    indices = [json.loads(path.read_text())["Index"] for path in sorted(release.glob("sub-*/anat/*_T1w.json"))]
    assert 1 not in indices, "site-a voted against it"
    assert indices[:4] == [0, 2, 3, 6]


@pytest.mark.slow
def test_a_vote_on_other_candidates_or_a_missing_one_stops_the_build(
    run: Path, words: tuple[Hospitals, list[Path], list[Path]], tmp_path: Path
) -> None:
    _, votes, ledgers = words
    other = json.loads(votes[0].read_text()) | {"candidates": "0" * 64}
    (tmp_path / "vote.json").write_text(json.dumps(other))
    with pytest.raises(IntegrityError, match="not a site's vote on these candidates"):
        build(run, POLICY, None, [tmp_path / "vote.json", votes[1]], ledgers)
    with pytest.raises(GateBlocked, match="site-b did not vote"):
        build(run, POLICY, None, votes[:1], ledgers)
    with pytest.raises(GateBlocked, match="no site said what it spent"):
        build(run, POLICY, None, votes, [])
    looser = Policy.read(POLICY.raw.replace(b"threshold = 0.88", b"threshold = 0.99"))
    with pytest.raises(PlanRefused, match="another plan or policy"):
        build(run, looser, None, votes, ledgers)


@pytest.mark.slow
def test_the_gates_say_what_they_found_and_change_nothing_else(
    run: Path, words: tuple[Hospitals, list[Path], list[Path]]
) -> None:
    before = {path for path in run.rglob("*") if path.name != "gates.json"}
    passed = gate(run, POLICY, *words[1:])
    assert (passed.candidates, passed.people) == (14, 6)
    assert "6 of 14 candidates may be released" in passed.in_words()
    written = json.loads((run / "gates.json").read_text())
    assert {row["name"] for row in written["gates"]} == {"budget", "copies", "anatomy", "diversity", "condition"}
    assert written["policy"] == POLICY.digest
    assert {path for path in run.rglob("*") if path.name != "gates.json"} == before


@pytest.mark.slow
def test_a_closed_gate_leaves_nothing_that_could_be_published(
    run: Path, words: tuple[Hospitals, list[Path], list[Path]], tmp_path: Path
) -> None:
    _, votes, ledgers = words
    here = tmp_path / "run"
    shutil.copytree(run, here, ignore=shutil.ignore_patterns("release"))
    release = build(here, POLICY, None, votes, ledgers)
    with pytest.raises(GateBlocked, match=r"diversity: most similar pair .*, allowed .* 0.01.*: train longer") as no:
        gate(here, STRICT, votes, ledgers)
    assert no.value.exit_code == 4
    assert not release.exists(), "it was built, not signed, and is not to be"
    assert json.loads((here / "gates.json").read_text())["verdict"] == "FAILED"
    with pytest.raises(GateBlocked):
        build(here, STRICT, None, votes, ledgers)
    assert not release.exists()
    assert not [path for path in here.iterdir() if path.name.startswith(".")], "no half-made folder either"


def test_what_was_signed_is_withdrawn_by_a_notice_and_never_by_a_gate(
    run: Path, words: tuple[Hospitals, list[Path], list[Path]], tmp_path: Path
) -> None:
    here = tmp_path / "run"
    shutil.copytree(run, here)
    (here / "release").mkdir(exist_ok=True)
    (here / "release" / "model.sig").write_text("{}")
    with pytest.raises(GateBlocked):
        gate(here, STRICT, *words[1:])
    assert (here / "release" / "model.sig").exists()


def test_candidates_are_their_owner_s_alone(run: Path) -> None:
    assert (run / "candidates").stat().st_mode & 0o077 == 0


def test_what_nobody_looked_at_is_never_approved(
    run: Path, words: tuple[Hospitals, list[Path], list[Path]], tmp_path: Path
) -> None:
    hospitals, _, _ = words
    for check in (Check("data steward", 0, "acceptable"), Check("data steward", 6, "ventricles are mirrored")):
        with pytest.raises(Braing3nError, match="looked at and rates acceptable"):
            approve_release(run, folder_of(run, "site-a"), "site-a", hospitals.keys["site-a"], check, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
