"""Test certificates are real ones: another program verifies them, and they vouch for one server alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from server.certificates import make_test_certificates, refuse_incomplete

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl program is the witness here")


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, timeout=60, check=False)


@needs_openssl
@pytest.mark.parametrize("host", ["fleet.example.org", "192.0.2.7"])
def test_openssl_verifies_the_server_under_its_name_and_under_loopback(tmp_path: Path, host: str) -> None:
    make_test_certificates(tmp_path, host)
    kind = "-verify_ip" if host[0].isdigit() else "-verify_hostname"
    trust = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", tmp_path / "ca.crt"]
    assert openssl(*trust, kind, host, tmp_path / "server.crt").returncode == 0
    assert openssl(*trust, "-verify_ip", "127.0.0.1", tmp_path / "server.crt").returncode == 0
    assert openssl(*trust, "-verify_hostname", "evil.example.org", tmp_path / "server.crt").returncode != 0


def test_the_key_is_its_owner_s_and_nothing_is_replaced(tmp_path: Path) -> None:
    make_test_certificates(tmp_path, "localhost")
    refuse_incomplete(tmp_path)
    assert (tmp_path / "server.key").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"ca.crt", "server.crt", "server.key"}
    with pytest.raises(UsageError, match="holds certificates already"):
        make_test_certificates(tmp_path, "localhost")


def test_a_key_that_others_read_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    make_test_certificates(tmp_path, "localhost")
    (tmp_path / "server.key").chmod(0o644)
    with pytest.raises(UsageError, match="may be read by others"):
        refuse_incomplete(tmp_path)
    (tmp_path / "ca.crt").unlink()
    with pytest.raises(UsageError, match=r"no .*ca\.crt; put your institution's there"):
        refuse_incomplete(tmp_path)
