"""A consortium as hospitals run it: SuperLink, door and three nodes as processes of their own, TLS and node keys on."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Iterator

import pytest

from privacy.ledger import Ledger
from tests.end_to_end.hospitals import Consortium, command, consortium, processes
from tests.network import OUTSIDE, cut_network, sent_outside
from tests.real import DATA, SITES, some_patients

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PATIENTS, ROUNDS = 6, 2


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """A whole run, on raw scans of three real sites where they are at hand and on phantoms where not."""
    with cut_network(), consortium(tmp_path_factory.mktemp("consortium")) as made:
        real = [some_patients(site, made.place / "real", PATIENTS) for site in SITES] if DATA.is_dir() else []
        made.begin(PATIENTS, ROUNDS, quorum=3, real=real)
        made.serve()
        for name in made.names:
            made.join(name)
        made.start()
        assert made.ended("start", 1500) == 0, made.said()
        yield made


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


@pytest.mark.crash
def test_a_hospital_s_doctor_finds_the_door_closed_and_the_server_who_it_says(ended: Consortium) -> None:
    said = json.loads(command("braing3n-site", "doctor", "--json", "--site", ended.site("north")).stdout)
    (server,) = (one for one in said if one["check"] == "server")
    assert server["state"] == "ok", server


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


def test_no_process_of_server_or_hospitals_asked_for_anything_outside(ended: Consortium) -> None:
    """Of all that ran until here: commands, SuperLink, door, server app, nodes and their workers."""
    if OUTSIDE not in [name for _, name in socket.if_nameindex()]:
        pytest.skip("this machine allows no network namespaces, so the network was not cut")
    assert sent_outside() == 0


def test_nothing_is_left_when_everybody_stops(ended: Consortium) -> None:
    ended.end()
    assert processes(str(ended.place)) == []
