"""A consortium as hospitals run it: SuperLink, door and three nodes as processes of their own, TLS and node keys on."""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from privacy.ledger import Ledger
from tests.end_to_end.hospitals import Consortium, command, consortium, processes, wait
from tests.network import OUTSIDE, cut_network, sent_outside

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PATIENTS, ROUNDS = 6, 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """A whole run on real data folders; strangers knocked at the door before."""
    with cut_network(), consortium(tmp_path_factory.mktemp("consortium")) as made:
        made.begin(PATIENTS, ROUNDS, quorum=3)
        made.serve()
        for name in made.names:
            made.join(name)
        strangers(made)
        made.start()
        assert made.ended("start", 1500) == 0, made.said()
        yield made


def strangers(made: Consortium) -> None:
    """A node nobody enrolled, and one that trusts another CA."""
    made.hospital("stranger", made.site("data"), PATIENTS)
    made.hospital("fooled", made.site("data"), PATIENTS)
    shutil.copy(made.site("north") / "keys" / "site.pem", made.site("fooled") / "keys" / "site.pem")
    shutil.copy(made.site("north") / "keys" / "site.pem.pub", made.site("fooled") / "keys" / "site.pem.pub")
    other = made.site("fooled") / "keys" / "ca.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
         "/CN=other", "-keyout", "/dev/null", "-out", other], check=True, capture_output=True,
    )  # fmt: skip
    file = made.site("fooled") / "site.toml"
    file.write_text(file.read_text().replace(str(made.folder / "tls" / "ca.crt"), str(other)))
    for name in ("stranger", "fooled"):
        made.join(name)
        made.until(name, "not joined", 300)
        made.running[name].send_signal(signal.SIGTERM)
        assert made.ended(name) == 130


def test_the_run_ends_with_a_release_and_the_ledgers_agree_with_it(ended: Consortium) -> None:
    assert json.loads((ended.run / "run.json").read_text())["exit_code"] == 0
    assert (ended.run / "release" / "docs" / "report.html").exists()
    rows = [json.loads(line) for line in (ended.run / "rounds.jsonl").read_text().splitlines()]
    assert [row["replied"] for row in rows] == [sorted(ended.names)] * ROUNDS
    for name in ended.names:
        with Ledger(ended.site(name) / "ledger.jsonl", 1e-4) as ledger:
            assert len(ledger.events) == ROUNDS
            assert 0 < ledger.epsilon <= 8
            assert rows[-1]["epsilon"][name] == ledger.epsilon


def test_each_hospital_wrote_down_all_that_left_it(ended: Consortium) -> None:
    for name in ended.names:
        lines = [json.loads(line) for line in (ended.site(name) / "audit.jsonl").read_text().splitlines()]
        assert [line["header"]["kind"] for line in lines] == ["ready"] + ["update"] * ROUNDS
        assert all(math.isfinite(line["header"]["epsilon"]) for line in lines[1:])
        for path in ("ledger.jsonl", "audit.jsonl", "node.log"):
            assert (ended.site(name) / path).stat().st_mode & 0o077 == 0


def test_status_and_ledger_are_told_by_the_site_s_own_command(ended: Consortium) -> None:
    said = json.loads(command("braing3n-site", "status", "--json", "--site", ended.site("north")).stdout)
    assert said["plans"][0]["paid"] == said["plans"][0]["rounds"] == ROUNDS
    assert said["last"]["kind"] == "update"
    assert command("braing3n-site", "ledger", "--verify", ended.site("north")).returncode == 0


@pytest.mark.parametrize(
    "path", ["/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/openapi.json", "/health"]
)
def test_from_outside_only_the_fleet_paths_answer(ended: Consortium, path: str) -> None:
    trust = ssl.create_default_context(cafile=str(ended.folder / "tls" / "ca.crt"))
    request = urllib.request.Request(f"https://localhost:{ended.port}{path}", data=b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, context=trust, timeout=60)  # noqa: S310 - our own door
    assert refused.value.code == 403
    refused.value.close()


@pytest.mark.crash
def test_a_hospital_s_doctor_finds_the_door_closed_and_the_server_who_it_says(ended: Consortium) -> None:
    said = json.loads(command("braing3n-site", "doctor", "--json", "--site", ended.site("north")).stdout)
    (server,) = (one for one in said if one["check"] == "server")
    assert server["state"] == "ok", server
    said = json.loads(command("braing3n-site", "doctor", "--json", "--site", ended.site("fooled")).stdout)
    (server,) = (one for one in said if one["check"] == "server")
    assert "does not vouch" in server["result"]


def test_a_node_without_an_enrolled_key_never_joined(ended: Consortium) -> None:
    assert "joined; requests" not in ended.log("stranger").read_text()
    assert not (ended.site("stranger") / "audit.jsonl").exists()


def test_a_node_that_meets_another_certificate_tells_it_nothing(ended: Consortium) -> None:
    assert "joined; requests" not in ended.log("fooled").read_text()
    assert "certificate" in (ended.site("fooled") / "node.log").read_text().lower()
    assert not (ended.site("fooled") / "audit.jsonl").exists()


def test_the_node_s_key_is_on_no_disk_but_its_own_file(ended: Consortium) -> None:
    for path in ended.site("north").rglob("*"):
        if path.is_file() and path.name != "site.pem":
            assert b"PRIVATE KEY" not in path.read_bytes(), path


def test_a_second_node_of_the_same_hospital_is_refused(ended: Consortium) -> None:
    again = command("braing3n-site", "join", "--site", ended.site("north"))
    assert again.returncode == 2
    assert "joined already" in again.stderr


def test_a_finished_run_ends_at_once_with_the_same_verdict_and_asks_nobody(ended: Consortium) -> None:
    before = {name: (ended.site(name) / "audit.jsonl").read_bytes() for name in ended.names}
    ended.start()
    assert ended.ended("start", 600) == 0, ended.said()
    assert before == {name: (ended.site(name) / "audit.jsonl").read_bytes() for name in ended.names}


def test_a_hospital_that_was_removed_is_thrown_out_while_the_server_runs(ended: Consortium) -> None:
    assert command("braing3n-admin", "remove", "east", "--consortium", ended.folder).returncode == 0
    ended.until("serve", "east may not join any more")
    wait(lambda: "not joined" in ended.log("east").read_text(), "east was not thrown out", 200, ended.said)
    again = command("braing3n-admin", "start", ended.signed, "--consortium", ended.folder)
    assert again.returncode == 3
    assert "east left the consortium" in again.stderr


def test_no_process_of_server_or_hospitals_asked_for_anything_outside(ended: Consortium) -> None:
    """Of all that ran until here: commands, SuperLink, door, server app, nodes and their workers."""
    if OUTSIDE not in [name for _, name in socket.if_nameindex()]:
        pytest.skip("this machine allows no network namespaces, so the network was not cut")
    assert sent_outside() == 0


def test_nothing_is_left_when_everybody_stops(ended: Consortium) -> None:
    ended.end()
    assert processes(str(ended.place)) == []
