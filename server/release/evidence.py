"""What a finished folder says about itself: plan, policy, gates, certificate, and what may be attested from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from braing3n_core.errors import IntegrityError
from braing3n_core.manifest import Digests, content, root
from braing3n_core.plan import TrainingPlan
from braing3n_core.released import FOLDER as GENERATOR
from braing3n_core.strict_json import Value, parsed
from server.release.certificate import FILE as CERTIFICATE_FILE
from server.release.certificate import Certificate
from server.release.gates import GATES
from server.release.policy import Policy

PLAN_FILE = "docs/plan.json"
POLICY_FILE = "docs/policy.toml"
GATES_FILE = "docs/gates.json"
VERDICTS = ("PASSED", "WARNED", "FAILED")
T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """A release's own documents, read once. `content` is the root digest of everything but the three sealing files."""

    plan: TrainingPlan
    policy: Policy
    gates: Value
    certificate: Certificate
    content: str

    @property
    def signing_sites(self) -> list[str]:
        """Sites whose signed ledger is in the certificate."""
        return [row.site for row in self.certificate.sites if row.public_key is not None]

    @property
    def needs_approvals(self) -> bool:
        """Whether every site must approve: always for real patients; for a rehearsal, once its phantom sites have keys."""
        return self.plan.rehearsal is None or bool(self.signing_sites)

    def properties(self) -> list[str]:
        """What the summary may say, each derived from the documents."""
        gates = _gates(self.gates)
        said = ["BRAING3N_SYNTHETIC"]
        if self.plan.privacy.private and self.certificate.epsilon != "infinite":
            said.append("BRAING3N_DP_PATIENT_LEVEL")
        said += [f"BRAING3N_GATE_{name.upper()}_PASSED" for name in GATES if _opened_by_evidence(gates[name])]
        said.append(f"BRAING3N_SITE_APPROVALS_{len(self.signing_sites)}_OF_{len(self.plan.sites)}")
        if self.plan.rehearsal is not None:
            said.append("BRAING3N_REHEARSAL")
        return said

    def test_result(self) -> dict[str, object]:
        """In-toto test-result v0.1 of the gates, with the policy they were held to."""
        gates = _gates(self.gates)
        return {
            "result": self.gates["verdict"],
            "configuration": [{"name": POLICY_FILE, "digest": {"sha256": self.policy.digest}}],
            "passedTests": [name for name in GATES if _opened_by_evidence(gates[name])],
            "warnedTests": [name for name in GATES if not gates[name]["applies"]],
            "failedTests": [name for name in GATES if not gates[name]["passed"]],
        }

    def summary(self, time: str) -> dict[str, object]:
        """In-toto SVR v0.2."""
        policies = [{"uri": f"file:{POLICY_FILE}", "digest": {"sha256": self.policy.digest}}]
        verifier = {"id": "urn:braing3n:gates", "policies": policies}
        return {"verifier": verifier, "timeCreated": time, "properties": self.properties()}


def read_evidence(folder: Path, digests: Digests) -> Evidence:
    """Read the documents of a folder whose files have these digests.

    Raises IntegrityError if one is missing, is not what its type says, or names another plan or policy than the folder holds.
    """

    def raw(name: str) -> bytes:
        if name not in digests:
            raise IntegrityError(f"{name} is missing; have the release made again")
        return (folder / name).read_bytes()

    plan = _plan(raw(PLAN_FILE))
    policy = _known(lambda: Policy.read(raw(POLICY_FILE)), POLICY_FILE)
    gates = parsed(raw(GATES_FILE), GATES_FILE)
    parsed(raw(CERTIFICATE_FILE), CERTIFICATE_FILE)          # pydantic takes a key that stands twice
    stated = Certificate.read(raw(CERTIFICATE_FILE))
    if not stated.policy == policy.digest == gates.get("policy"):
        raise IntegrityError(f"certificate, gates and {POLICY_FILE} do not name one policy; have the release made again")
    if stated.generator != any(name.startswith(f"{GENERATOR}/") for name in digests):
        raise IntegrityError(f"certificate and folder disagree on whether {GENERATOR}/ is given away; have it made again")
    names = sorted(_gates(gates))
    if not (names == sorted(GATES) and gates.get("verdict") in VERDICTS):
        raise IntegrityError(f"{GATES_FILE} does not hold the verdict of every gate; have the release made again")
    return Evidence(plan, policy, gates, stated, root(content(digests)))


def _plan(raw: bytes) -> TrainingPlan:
    plan = _known(lambda: TrainingPlan.from_json(raw.decode()), PLAN_FILE)
    parsed(raw, PLAN_FILE)
    if not plan.canonical().encode() == raw.strip():
        raise IntegrityError(f"{PLAN_FILE} is not a plan in its one canonical form; have the release made again")
    return plan


def _known(read: Callable[[], T], name: str) -> T:
    try:
        return read()
    except IntegrityError:
        raise
    except Exception as error:
        raise IntegrityError(f"{name} cannot be read: {' '.join(str(error).split())[:150]}") from error


def _gates(document: Value) -> Mapping[str, Mapping[str, object]]:
    rows = document.get("gates")
    found = {}
    for row in rows if isinstance(rows, list) else []:
        match row:
            case {"name": str(name), "passed": bool(), "applies": bool(), "found": str()}:
                found[name] = row
            case _:
                raise IntegrityError(f"{GATES_FILE} has a gate that is none; have the release made again")
    return found


def _opened_by_evidence(gate: Mapping[str, object]) -> bool:
    return gate["passed"] is True and gate["applies"] is True
