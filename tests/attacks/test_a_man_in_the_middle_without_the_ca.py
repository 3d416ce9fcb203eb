"""Somebody stands between a hospital and the server, under the server's name, with a certificate of another CA."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from client.reach import CONTROL, FLEET, check_server
from server.certificates import make_test_certificates
from tests.end_to_end.hospitals import Consortium, wait
from tests.listener import listening

PLAUSIBLE = {CONTROL: 403, FLEET: 401}                       # what the server's own door says


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    for whose in ("ours", "others"):
        make_test_certificates(folder / whose, "localhost")
    return folder


def test_doctor_finds_him_before_a_word_is_sent(tls: Path) -> None:
    with listening(tls / "others", PLAUSIBLE) as (server, came):
        (found,) = check_server(server, tls / "ours" / "ca.crt")
    assert found.state == "refused"
    assert "does not vouch" in found.result
    assert "do not join" in found.fix
    assert came == []


def sent_away(served: Consortium, name: str, server: str) -> None:
    """A hospital of the consortium, with its CA, whose node is led to another server."""
    served.hospital(name, served.place / "data", 8)
    file = served.site(name) / "site.toml"
    file.write_text(file.read_text().replace(f"127.0.0.1:{served.port}", server))
    served.join(name)


@pytest.mark.slow
def test_a_node_tells_him_nothing(served: Consortium, tls: Path) -> None:
    with listening(tls / "others", PLAUSIBLE) as (server, came):
        sent_away(served, "fooled", server)
        served.until("fooled", "not joined", 300)
        served.running["fooled"].send_signal(signal.SIGTERM)
        assert served.ended("fooled") == 130
    assert came == []
    assert "certificate verify failed" in (served.site("fooled") / "node.log").read_text()
    assert "joined; requests" not in served.log("fooled").read_text()
    assert not (served.site("fooled") / "audit.jsonl").exists()


@pytest.mark.slow
def test_under_a_certificate_that_its_ca_signed_the_node_would_have_said_who_it_is(served: Consortium) -> None:
    """So the silence above is for want of the CA, not of words or of ears."""
    with listening(served.folder / "tls", PLAUSIBLE) as (server, came):
        sent_away(served, "guided", server)
        wait(lambda: bool(came), "the node said nothing", 300, served.said)
        served.running["guided"].send_signal(signal.SIGTERM)
        assert served.ended("guided") == 130
    assert (served.site("guided") / "keys" / "site.pem.pub").read_bytes() in came[0]
