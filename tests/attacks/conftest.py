"""What several attacks need: one thread, for models so small that two cores wait for each other, and one server for all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.end_to_end.hospitals import Consortium, consortium
from tests.server.release.conftest import plan, signed, voting

ENROLLED = ("north", "south")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consortium]:
    """A server as it runs: SuperLink, door, TLS and the keys of two hospitals. No plan, no run and no data."""
    pytest.importorskip("flwr", reason="the server is Flower's SuperLink")
    with consortium(tmp_path_factory.mktemp("served"), ENROLLED) as made:
        made.establish([made.place / "data"] * len(ENROLLED), 8)
        made.serve()
        yield made


__all__ = ["plan", "signed", "voting"]
