"""A hospital's site.toml: what is left out has a place, and what is misspelt is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from braing3n_core.errors import UsageError
from client.site_file import SiteFile

WHOLE = """
[site]
name = "north"
data = "bids"
server = "fleet.example.org:8443"

[policy]
epsilon = 8
"""


def written(folder: Path, text: str) -> Path:
    (folder / "site.toml").write_text(text)
    return folder


def test_paths_begin_at_the_site_s_folder(tmp_path: Path) -> None:
    read = SiteFile.load(written(tmp_path, WHOLE))
    assert (read.folder, read.data, read.key) == (tmp_path, tmp_path / "bids", tmp_path / "keys" / "site.pem")
    assert (read.admin_key, read.ca) == (tmp_path / "keys" / "admin.pub", tmp_path / "keys" / "ca.crt")
    assert (read.name, read.server, read.policy.epsilon) == ("north", "fleet.example.org:8443", 8.0)


def test_an_absolute_path_stays_where_it_is(tmp_path: Path) -> None:
    assert SiteFile.load(written(tmp_path, WHOLE.replace('"bids"', '"/data/bids"'))).data == Path("/data/bids")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (WHOLE.replace("epsilon", "epsilom"), "did you mean 'epsilon'"),
        (WHOLE.replace("[policy]\nepsilon = 8\n", ""), "policy: Field required"),
        (WHOLE.replace('"north"', '"North"'), "site.name: String should match"),
        (WHOLE.replace(":8443", ""), "site.server: String should match"),
        (WHOLE.replace("epsilon = 8", "epsilon = nan"), "policy.epsilon"),
        (WHOLE.replace("epsilon = 8", "epsilon ="), "not readable as TOML"),
        (WHOLE + "since = 2026-01-01\n", "not JSON serializable"),
    ],
)
def test_a_fault_is_named_in_one_line(tmp_path: Path, wrong: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        SiteFile.load(written(tmp_path, wrong))
    assert "\n" not in str(refused.value)


def test_a_folder_without_the_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make one with: braing3n-site init"):
        SiteFile.load(tmp_path)
