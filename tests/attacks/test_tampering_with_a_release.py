"""A release that was touched after it was signed, or signed by somebody who lies, is refused with exit 6 and the step's name.

Two attackers: a stranger, who has no key, and a dishonest publisher, who holds the release key but no site's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from braing3n_core.errors import GateBlocked, IntegrityError
from braing3n_core.manifest import ATTESTATIONS, SIGNATURE, content, digests_of, root
from braing3n_core.statements import APPROVAL, CERTIFICATE, MODEL_SIGNATURE, PAYLOAD, SUMMARY, TEST_RESULT, statement
from client.attest import NOBODY_LOOKED, approve, ledger_statement
from privacy.errors import PrivacyError
from privacy.signing import SigningKey, sealed
from server.release.accounts import Sealed, opened_ledger
from server.release.certificate import FILE, Certificate
from server.release.dated_key import DatedKey
from server.release.evidence import GATES_FILE, POLICY_FILE, read_evidence
from server.release.revoke import revoke
from server.release.seal import SERIALIZATION, seal
from server.release.verify import verify
from tests.server.release.conftest import Signed
from tests.server.release.hospitals import Hospitals, copied, folder_of, pay, resigned

ADMIN = Path(sys.executable).parent / "braing3n-admin"
SIDECAR = "sub-syn0001/anat/sub-syn0001_space-MNI152NLin2009aAsym_desc-synthetic_T1w.json"


def refused(release: Path, signed: Signed, step: str, why: str, revocations: Path | None = None) -> None:
    with pytest.raises(IntegrityError, match=rf"^step \d+, {step}: .*{why}") as refusal:
        verify(release, signed.key.public, revocations)
    assert refusal.value.exit_code == 6


def edited(path: Path, change: Callable[[dict[str, object]], None]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document, indent=1) + "\n")


def lines(release: Path) -> list[str]:
    return (release / ATTESTATIONS).read_text().splitlines()


def write_lines(release: Path, found: list[str], signed: Signed) -> Path:
    (release / ATTESTATIONS).write_text("".join(f"{line}\n" for line in found))
    return resigned(release, signed.key)


def test_an_untouched_release_verifies_also_under_another_name(signed: Signed, tmp_path: Path) -> None:
    moved = copied(signed.release, tmp_path).rename(tmp_path / "renamed")
    verdict = verify(moved, signed.key.public)
    assert [number for number, _, _ in verdict.steps] == list(range(1, 11))
    assert verdict.release == "demo-1.0.0"
    assert "a rehearsal: its hospitals are phantoms" in verdict.notes


# ------------------------------------------------------------------------------------------------ a stranger


@pytest.mark.parametrize("name", ["README.md", "participants.tsv", FILE, GATES_FILE, ATTESTATIONS, SIDECAR])
def test_one_flipped_byte_anywhere(signed: Signed, tmp_path: Path, name: str) -> None:
    release = copied(signed.release, tmp_path)
    raw = bytearray((release / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (release / name).write_bytes(bytes(raw))
    refused(release, signed, "files", "is not what was signed")


@pytest.mark.parametrize("name", ["sub-syn0007/anat/extra.nii.gz", "notes.txt", ".hidden", ".gitattributes", ".github/run.yml"])
def test_a_file_that_was_added(signed: Signed, tmp_path: Path, name: str) -> None:
    release = copied(signed.release, tmp_path)
    (release / name).parent.mkdir(parents=True, exist_ok=True)
    (release / name).write_text("new")
    refused(release, signed, "files", "was not signed")


def test_a_file_that_was_removed_or_renamed(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    (release / "CHANGES").rename(release / "CHANGE")
    refused(release, signed, "files", "CHANGES was signed and is missing")
    (release / SIGNATURE).unlink()
    refused(release, signed, "signature", "not signed")


@pytest.mark.parametrize("target", ["/etc/hostname", "README.md"])
def test_a_link_in_place_of_a_file(signed: Signed, tmp_path: Path, target: str) -> None:
    release = copied(signed.release, tmp_path)
    (release / "LICENSE").unlink()
    os.symlink(target, release / "LICENSE")
    refused(release, signed, "folder", "LICENSE is a link")


def test_another_key(signed: Signed, tmp_path: Path) -> None:
    release = resigned(copied(signed.release, tmp_path), SigningKey.generate())
    refused(release, signed, "signature", "did not sign this")


def test_a_signature_over_something_else(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    envelope = json.loads(lines(release)[0])                 # signed with the release key, and not a list of files
    edited(release / SIGNATURE, lambda bundle: bundle.update(dsseEnvelope=envelope))
    refused(release, signed, "signature", "does not hold a model signature")


def test_a_key_that_stands_twice_in_one_object(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    text = (release / SIGNATURE).read_text()
    (release / SIGNATURE).write_text(text.replace("{", '{"mediaType": "application/x",', 1))
    refused(release, signed, "signature", "'mediaType' stands twice")


@pytest.mark.parametrize("last_day", ["2026-11-24", "2020-01-01"])
def test_an_expired_key(signed: Signed, tmp_path: Path, last_day: str) -> None:
    (tmp_path / "dated.pub").write_bytes(f"Not after: {last_day}\n".encode() + signed.key.public.pem)
    trusted = DatedKey.load(tmp_path / "dated.pub")
    assert verify(signed.release, trusted, today=date.fromisoformat(last_day)).release == "demo-1.0.0"
    with pytest.raises(IntegrityError, match=rf"^step 2, signature: the key was trusted until {last_day}") as refusal:
        verify(signed.release, trusted, today=date.fromisoformat(last_day) + timedelta(days=1))
    assert refusal.value.exit_code == 6


@pytest.mark.parametrize("words", ["Not after: soon", "not after:", "Not after: 2030-01-01\nNot after: 2040-01-01"])
def test_a_key_that_does_not_say_clearly_until_when(signed: Signed, tmp_path: Path, words: str) -> None:
    (tmp_path / "dated.pub").write_bytes(f"{words}\n".encode() + signed.key.public.pem)
    with pytest.raises(IntegrityError, match="until when"):
        DatedKey.load(tmp_path / "dated.pub")


# --------------------------------------------------------------------------------------- a dishonest publisher


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "docs//plan.json", "docs/../docs/plan.json", "a\\b", ""])
def test_a_path_out_of_the_folder_in_the_list(signed: Signed, tmp_path: Path, name: str) -> None:
    release = copied(signed.release, tmp_path)
    listed = {**{k: v for k, v in digests_of(release).items() if k != SIGNATURE}, name: "0" * 64}
    rows = [{"name": k, "algorithm": "sha256", "digest": listed[k]} for k in sorted(listed)]
    said = statement(MODEL_SIGNATURE, {"serialization": SERIALIZATION, "resources": rows}, "release", root(listed))
    edited(release / SIGNATURE, lambda bundle: bundle.update(dsseEnvelope=dict(sealed(PAYLOAD, said, [signed.key]))))
    refused(release, signed, "signature", "not a path inside the release")


def test_a_duplicate_key_in_a_document(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    text = (release / FILE).read_text()
    (release / FILE).write_text(text.replace("{", '{"epsilon": 0.1,', 1))
    refused(resigned(release, signed.key), signed, "documents", "'epsilon' stands twice")


def test_a_lower_epsilon_in_the_certificate(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)

    def lower(document: dict[str, object]) -> None:
        document["epsilon"] = 0.5
        for row in document["sites"]:                        # type: ignore[attr-defined]
            row["epsilon"] = 0.5

    edited(release / FILE, lower)
    refused(resigned(release, signed.key), signed, "certificate", "site-a states epsilon 0.5; its events cost")


def test_fewer_events_than_the_site_signed(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    edited(release / FILE, lambda document: document["sites"][0]["events"].pop())  # type: ignore[index]
    refused(resigned(release, signed.key), signed, "certificate", "another ledger for site-a than the site signed")


def test_a_site_left_out(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    edited(release / FILE, lambda document: document["sites"].pop())               # type: ignore[attr-defined]
    refused(resigned(release, signed.key), signed, "certificate", "site-b of the plan is missing")


def test_a_site_whose_name_is_signed_with_the_publisher_s_own_key(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    forged = ledger_statement(folder_of(signed.hospitals.root, "site-b"), "site-b", signed.plan.digest, signed.key)
    edited(release / FILE, lambda document: document["sites"][1].update(ledger=dict(forged)))  # type: ignore[index]
    refused(resigned(release, signed.key), signed, "certificate", "did not sign this")


def test_a_key_without_a_ledger_never_counts_as_a_site_s_word(signed: Signed, tmp_path: Path) -> None:
    """The publisher's own key in a site's row, so that the publisher can approve in the site's name."""
    release = copied(signed.release, tmp_path)
    mine = signed.key.public.pem.decode()
    edited(release / FILE, lambda document: document["sites"][1].update(public_key=mine, ledger=None))  # type: ignore[index]
    refused(resigned(release, signed.key), signed, "documents", "all belong there, or none")


def test_the_ledger_of_another_site_or_of_another_run(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    both = json.loads((release / FILE).read_text())["sites"]
    edited(release / FILE, lambda document: document["sites"][0].update(  # type: ignore[index]
        {name: both[1][name] for name in ("ledger", "head", "events", "epsilon")}, public_key=both[0]["public_key"]))
    refused(resigned(release, signed.key), signed, "certificate", "did not sign this")

    other = signed.plan.but(seed=signed.plan.seed + 1)
    key = signed.hospitals.keys["site-a"]
    pay(tmp_path, other, "site-a")
    wrong = ledger_statement(folder_of(tmp_path, "site-a"), "site-a", signed.plan.digest, key)
    release = copied(signed.release, tmp_path / "again")
    edited(release / FILE, lambda document: document["sites"][0].update(ledger=dict(wrong)))   # type: ignore[index]
    refused(resigned(release, signed.key), signed, "certificate", "never paid for this plan")


def test_an_older_ledger_head(signed: Signed, tmp_path: Path) -> None:
    """A publisher who kept what the site signed earlier cannot get it approved: the site compares it with its ledger."""
    hospitals = Hospitals(tmp_path, signed.plan)
    older, site = hospitals.statement("site-a"), folder_of(tmp_path, "site-a")
    stale = opened_ledger(signed.plan.digest, "site-a", 1e-4, Sealed(hospitals.keys["site-a"].public, older))[0]
    pay(tmp_path, signed.plan, "site-a", rounds=2)
    release = copied(signed.release, tmp_path)
    edited(release / FILE, lambda document: document["sites"][0].update(ledger=dict(older), head=stale))  # type: ignore[index]
    with pytest.raises(IntegrityError, match="does not state the ledger of site-a as it stands"):
        approve(release, site, "site-a", hospitals.keys["site-a"], NOBODY_LOOKED)


def test_an_approval_with_another_ledger_head(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    found = lines(release)
    said = {"site": "site-a", "decision": "approved", "ledger_head": "0" * 64}
    subject = root(content(digests_of(release)))
    careless = sealed(PAYLOAD, statement(APPROVAL, said, "release content", subject), [signed.hospitals.keys["site-a"]])
    refused(write_lines(release, [*found[:3], json.dumps(careless), found[4]], signed), signed, "approvals", "one is older")


@pytest.mark.parametrize(("drop", "step", "why"), [
    (3, "approvals", "site-a has not approved"), (4, "approvals", "site-b has not approved"), (0, "attestations", "is missing"),
])
def test_a_statement_left_out(signed: Signed, tmp_path: Path, drop: int, step: str, why: str) -> None:
    release = copied(signed.release, tmp_path)
    found = lines(release)
    refused(write_lines(release, found[:drop] + found[drop + 1 :], signed), signed, step, why)


def test_an_approval_that_stands_twice_in_place_of_another(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    found = lines(release)
    refused(write_lines(release, [*found[:4], found[3]], signed), signed, "approvals", "site-a approved twice")


@pytest.mark.parametrize("place", [0, 1, 2, 3, 4])
def test_each_attestation_swapped_for_that_of_another_release(
    signed: Signed, tmp_path: Path, place: int, other: list[str]
) -> None:
    release = copied(signed.release, tmp_path)
    found = lines(release)
    found[place] = other[place]
    step = "attestations" if place < 3 else "approvals"
    refused(write_lines(release, found, signed), signed, step, "another release")


@pytest.fixture(scope="module")
def other(signed: Signed, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Attestations of a second release by the same people."""
    release = copied(signed.release, tmp_path_factory.mktemp("other"))
    (release / "CHANGES").write_text("2.0.0 2026-12-01\n  - Another release.\n")
    seal(release, signed.key, signed.hospitals.approvals(release))
    return lines(release)


def test_a_policy_that_was_loosened_afterwards(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    text = (release / POLICY_FILE).read_text()
    (release / POLICY_FILE).write_text(text.replace("threshold = 0.88", "threshold = 0.99"))
    refused(resigned(release, signed.key), signed, "documents", "do not name one policy")


def test_a_gate_result_under_another_policy_than_the_folder_s(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    evidence = read_evidence(release, digests_of(release))
    said = evidence.test_result()
    said["configuration"] = [{"name": POLICY_FILE, "digest": {"sha256": "0" * 64}}]
    forged = sealed(PAYLOAD, statement(TEST_RESULT, said, "release content", evidence.content), [signed.key])
    found = lines(release)
    refused(write_lines(release, [json.dumps(forged), *found[1:]], signed), signed, "attestations", "says something else")


def test_a_summary_that_boasts(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    evidence = read_evidence(release, digests_of(release))
    said = evidence.summary("2026-11-24T00:00:00+00:00")
    said["properties"] = ["BRAING3N_SITE_APPROVALS_5_OF_5"]
    forged = sealed(PAYLOAD, statement(SUMMARY, said, "release content", evidence.content), [signed.key])
    found = lines(release)
    refused(write_lines(release, [found[0], json.dumps(forged), *found[2:]], signed), signed, "attestations", "says some")


def test_a_certificate_statement_that_is_not_the_file(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    evidence = read_evidence(release, digests_of(release))
    said = evidence.certificate.model_dump(mode="json") | {"epsilon": 0.1}
    forged = json.dumps(sealed(PAYLOAD, statement(CERTIFICATE, said, "release content", evidence.content), [signed.key]))
    found = lines(release)
    refused(write_lines(release, [*found[:2], forged, *found[3:]], signed), signed, "attestations", "something else")


def test_an_image_that_does_not_say_it_is_synthetic(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    edited(release / SIDECAR, lambda document: document.update(SyntheticData=False))
    seal(release, signed.key, signed.hospitals.approvals(release))
    refused(release, signed, "images", "does not say in header and sidecar")


def test_a_release_without_approvals_is_never_signed(signed: Signed, tmp_path: Path) -> None:
    release = copied(signed.release, tmp_path)
    with pytest.raises(GateBlocked, match="site-a has not approved"):
        seal(release, signed.key, [])
    with pytest.raises((IntegrityError, PrivacyError)):
        seal(release, signed.key, [json.loads(line) for line in lines(signed.release)[:2]])


# ---------------------------------------------------------------------------------------------------- withdrawn


def test_a_revoked_release(signed: Signed, other: list[str], tmp_path: Path) -> None:
    release, notices = copied(signed.release, tmp_path), tmp_path / "revoked.jsonl"
    changed = copied(signed.release, tmp_path / "changed")
    (changed / "CHANGES").write_text("0.9.0 2026-01-01\n  - An older release.\n")
    revoke(changed, signed.key, "an older release", notices)
    assert "none of 1 notices" in verify(release, signed.key.public, notices).steps[-1][2]
    revoke(release, signed.key, "ventricles are mirrored", notices)
    refused(release, signed, "revocation", "ventricles are mirrored", notices)


def test_a_revocation_list_that_somebody_else_wrote_is_no_list(signed: Signed, tmp_path: Path) -> None:
    notices = tmp_path / "revoked.jsonl"
    revoke(signed.release, SigningKey.generate(), "out of malice", notices)
    refused(signed.release, signed, "revocation", "did not sign this", notices)
    refused(signed.release, signed, "revocation", "no revocation list", tmp_path / "absent.jsonl")
    notices.write_text(lines(signed.release)[0] + "\n")
    refused(signed.release, signed, "revocation", "is not a revocation", notices)


# ------------------------------------------------------------------------------------------------- as a command


def admin(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ADMIN, *map(str, words)], capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_the_command_says_the_step_and_ends_with_six(signed: Signed, tmp_path: Path) -> None:
    good = admin("verify", signed.release, "--key", signed.public)
    assert (good.returncode, good.stderr) == (0, "")
    assert "verified: demo-1.0.0" in good.stdout
    release = copied(signed.release, tmp_path)
    shutil.rmtree(release / "sub-syn0002")
    bad = admin("verify", release, "--key", signed.public)
    assert bad.returncode == 6
    expired = tmp_path / "expired.pub"
    expired.write_bytes(b"Not after: 2001-01-01\n" + signed.public.read_bytes())
    late = admin("verify", signed.release, "--key", expired)
    assert (late.returncode, late.stderr.count("\n")) == (6, 1)
    assert "step 2, signature: the key was trusted until 2001-01-01" in late.stderr
    assert bad.stderr.startswith("braing3n-admin: step 3, files: sub-syn0002/")
    assert bad.stderr.count("\n") == 1


@pytest.mark.slow
def test_sign_and_revoke_as_commands(signed: Signed, tmp_path: Path) -> None:
    release, key, notices = copied(signed.release, tmp_path), tmp_path / "key", tmp_path / "list.jsonl"
    signer = SigningKey.generate()
    signer.write(key)
    words = []
    for site, approval in zip(signed.hospitals.keys, signed.hospitals.approvals(release), strict=True):
        (tmp_path / f"{site}.json").write_text(json.dumps(approval))
        words += ["--approval", tmp_path / f"{site}.json"]
    assert admin("release", "sign", release, "--key", key).returncode == 4
    done = admin("release", "sign", release, "--key", key, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert admin("verify", release, "--key", tmp_path / "key.pub").returncode == 0
    assert admin("revoke", release, "--key", key, "--reason", "a test", "--notices", notices).returncode == 0
    assert admin("verify", release, "--key", tmp_path / "key.pub", "--revocations", notices).returncode == 6


def test_the_certificate_reads_back(signed: Signed) -> None:
    raw = (signed.release / FILE).read_bytes()
    assert Certificate.read(raw).as_json() == raw
