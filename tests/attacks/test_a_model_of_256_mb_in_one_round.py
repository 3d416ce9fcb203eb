"""A model of 256 MB in one round, over TLS, the door with its limit, node keys and Flower's own pieces: it passes.

The site that answers with one number more than it was asked for is refused by name, and the round closes without it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from braing3n_core.bundle import toml_lines, write_app
from braing3n_core.flower_process import BIN, environment, free_port
from braing3n_core.plan import TrainingPlan
from braing3n_core.settings import OWN
from privacy.signing import SigningKey
from server import checkpoint
from server.conduct import claim
from server.consortium import Consortium as Folder
from server.fleet_door import LARGEST_BODY
from server.plans import signed
from server.serve import Link
from tests.end_to_end.hospitals import Consortium, consortium, wait

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1800)]  # minutes: `make test-crash`
ROOT = Path(__file__).parents[2]
NUMBERS = 64_000_000
APPS = ("tests.attacks.large_model:server", "tests.attacks.large_model:client")


def join(made: Consortium, name: str) -> None:
    """A node with the hospital's key and Flower's own program: the gate would not admit an app that is not ours."""
    home = made.site(name) / "flower"
    (home / "empty").mkdir(parents=True)
    key = home / "key"
    key.write_bytes(SigningKey.load(made.site(name) / "keys" / "site.pem").openssh())
    key.chmod(0o600)
    with made.log(name).open("a") as log:
        made.running[name] = subprocess.Popen(
            [sys.executable, "-I", "-m", "client.node", "--superlink", f"127.0.0.1:{made.port}", "--root-certificates",
             made.folder / "tls" / "ca.crt", "--auth-supernode-private-key", key, "--port", str(free_port())],
            cwd=home / "empty", env=environment(home), stdout=log, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip


def handed_in(made: Consortium) -> Path:
    """The signed plan as a run of Flower with the apps above; the run's folder."""
    folder = Folder(made.folder)
    agreement, link = signed(folder, made.signed), Link(folder)
    out = folder.run(agreement.plan.digest)
    claim(agreement.plan, out)
    (out / "sites.json").write_text(json.dumps(dict(agreement.keys)))
    config = made.place / "run.toml"
    config.write_text("\n".join(toml_lines({"plan": str(out / "plan.json"), "out-dir": str(out), "data": OWN})) + "\n")
    words = [BIN / "flwr", "run", write_app(made.place / "app", *APPS), "link", "--run-config", config]
    seen = environment(link.admin)
    done = subprocess.run(words, cwd=made.place, env=seen, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_it_passes_and_one_number_more_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))              # the apps are in tests/, which is not installed
    with consortium(tmp_path, ("north", "south")) as made:
        made.begin(2, 1, quorum=1)
        made.serve()
        for name in made.names:
            join(made, name)
        out = handed_in(made)
        wait((out / "run.json").exists, "the round never closed", 1500, made.said)
        ended = json.loads((out / "run.json").read_text())
    assert NUMBERS * 4 > LARGEST_BODY, "or the door's limit was not met"
    assert (ended["replied"], ended["numbers"]) == (["north"], NUMBERS)
    assert ended["refused"] == {
        "south": f"south sent float32 of shape ({NUMBERS + 1},), not float32 ({NUMBERS},); the round goes on without it"
    }
    state = checkpoint.newest(out / "checkpoints", TrainingPlan.load(made.place / "plan.toml").digest)
    assert state is not None
    sent = (np.random.default_rng(list(who.encode())).standard_normal(NUMBERS, np.float32) for who in ("start", "north"))
    np.testing.assert_allclose(state.values, sum(sent), atol=1e-5)
    shutil.rmtree(out)                                       # a quarter of a gigabyte
