"""A node joins with its own key and its own gate, tries again with patience, and leaves no key on a disk."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from braing3n_core.flower_process import environment
from client import join as module
from client.enrolled import enrolled
from client.join import join, waits, write_gate
from privacy.errors import SumRefused
from privacy.signing import SigningKey
from tests.consortium import begun


def test_waits_double_up_to_a_quarter_of_a_minute() -> None:
    """Flower's server believes a node that was killed to be there for a minute, so longer waits only lose time."""
    assert list(itertools.islice(waits(), 6)) == [2, 4, 8, 15, 15, 15]


def test_a_site_without_a_server_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no server"):
        join(begun(tmp_path).site, None, print)


def test_the_key_is_handed_over_in_memory(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

    key = SigningKey.generate()
    with module._in_memory(key) as file:
        first, second = (Path(f"/dev/fd/{file}").read_bytes() for _ in range(2))
    assert first == second
    loaded = load_ssh_private_key(first, None).public_key()
    assert loaded == load_ssh_public_key(key.public.openssh)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_the_gate_signs_with_that_key_and_when_its_join_ended_with_none(tmp_path: Path) -> None:
    one = begun(tmp_path / "place")
    key, passphrase = one.keys["north"], b"six random words are good"
    with module._in_memory(key) as file:
        path = Path(f"/proc/{os.getpid()}/fd/{file}")
        assert path.stat().st_mode & 0o077 == 0
        assert enrolled(one.site, one.agreement(), path).own().public == key.public
    assert enrolled(one.site, one.agreement(), path).own().public == key.public      # not locked: the file itself
    one.site.key.unlink()
    one.site.key.with_name("site.pem.pub").unlink()
    key.write(one.site.key, passphrase)
    with pytest.raises(SumRefused, match="start join again"):
        enrolled(one.site, one.agreement(), path).own()
    assert enrolled(one.site, one.agreement(), path).roster() == {name: key.public for name, key in one.keys.items()}


def test_a_file_in_the_node_s_working_directory_is_refused(tmp_path: Path) -> None:
    module._make_empty(tmp_path)
    (tmp_path / "empty" / "client.py").touch()
    with pytest.raises(UsageError, match="imports from its working directory"):
        module._make_empty(tmp_path)


def test_the_gate_comes_first_on_the_node_s_path_and_nothing_calls_home(tmp_path: Path) -> None:
    gate = write_gate(tmp_path, Path("/proc/1/fd/9"))
    seen = environment(tmp_path / "flower", gate.parent)
    assert seen["PATH"].split(os.pathsep)[0] == str(gate.parent)
    assert (seen["FLWR_TELEMETRY_ENABLED"], seen["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert " -I " in gate.read_text()
    assert "/proc/1/fd/9" in gate.read_text()
    assert repr(str(tmp_path)) in gate.read_text().replace("'\"'\"'", "'")
