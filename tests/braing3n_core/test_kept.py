"""What is kept from one process to the next is what would be made anew, or it is made anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from braing3n_core.data.template import _made, template
from braing3n_core.kept import cache_folder, kept
from braing3n_core.models.presets import PRESETS

MADE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([True, False])}


@pytest.fixture
def makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[bool], Callable[[], dict[str, Tensor]]]:
    """A maker, and how often it was asked; the cache is an empty folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    asked: list[bool] = []

    def make() -> dict[str, Tensor]:
        asked.append(True)
        return MADE

    return asked, make


def same(found: dict[str, Tensor]) -> bool:
    return found.keys() == MADE.keys() and all(torch.equal(found[name], MADE[name]) for name in MADE)


def test_it_is_made_once_for_what_it_is_made_from(makes: tuple[list[bool], Callable[[], dict[str, Tensor]]]) -> None:
    asked, make = makes
    assert same(kept("x", b"one", make))
    assert same(kept("x", b"one", make))
    assert len(asked) == 1
    assert same(kept("x", b"two", make))
    assert len(asked) == 2
    assert {path.stat().st_mode & 0o077 for path in cache_folder().parent.iterdir()} == {0}


@pytest.mark.parametrize("place", [0.02, 0.5, 0.99], ids=["head", "middle", "end"])
def test_a_file_with_one_changed_byte_or_cut_short_is_made_anew(
    makes: tuple[list[bool], Callable[[], dict[str, Tensor]]], place: float
) -> None:
    asked, make = makes
    kept("x", b"one", make)
    (path,) = cache_folder().glob("x-*")
    whole = path.read_bytes()
    at = int(place * len(whole))
    for broken in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole[:at], b""):
        path.write_bytes(broken)
        before = len(asked)
        assert same(kept("x", b"one", make))
        assert len(asked) == before + 1
        assert path.read_bytes() == whole


@pytest.mark.parametrize("home", ["/proc/nothing", "relative"])
def test_where_nothing_can_be_written_it_is_made_each_time(
    makes: tuple[list[bool], Callable[[], dict[str, Tensor]]], home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, make = makes
    monkeypatch.setenv("XDG_CACHE_HOME", home)
    monkeypatch.setenv("HOME", "/proc/nothing")
    for _ in range(2):
        assert same(kept("x", b"one", make))
    assert len(asked) == 2
    assert not Path("relative").exists()


@pytest.mark.slow
def test_the_template_that_is_kept_is_the_one_that_is_made() -> None:
    found, fresh = template(PRESETS["tiny"]), _made(PRESETS["tiny"])
    for name, tensor in fresh.items():
        assert torch.equal(getattr(found, name), tensor)
        assert getattr(found, name).dtype == tensor.dtype
