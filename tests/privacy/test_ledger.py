"""The ledger's guarantees, one test each, and the laws that make them true for histories nobody wrote by hand."""

from __future__ import annotations

import hashlib
import math
import resource
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.accountant import epsilon
from privacy.errors import BudgetExhausted, LedgerBusy, LedgerCorrupt, MechanismRefused
from privacy.events import Event, NonPrivate, SampledGaussian, Unbounded
from privacy.ledger import Ledger, chained, read_chain, written

DELTA = 1e-5
STEP = SampledGaussian("decoder", 4.0, 0.25, 5)
START = hashlib.sha256(b"braing3n ledger").hexdigest()


def _sample() -> bytes:
    raw, head = b"", START
    for sequence, kind in enumerate(["opened", "reserved", "released"]):
        body = {"sequence": sequence, "kind": kind, "purpose": "décoder", "number": 0.1 * sequence}
        head = chained(head, body)
        raw += written(body, head)
    return raw


SAMPLE = _sample()


def test_what_was_reserved_is_spent_for_every_later_reader(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        first = ledger.reserve(STEP, "a", 8.0)
        second = ledger.reserve(STEP, "b", 8.0)
        head, spent = ledger.head, ledger.epsilon
    with Ledger(path, DELTA) as ledger:
        assert ledger.events == (STEP, STEP)
        assert ledger.reservations == (first, second)
        assert (ledger.head, ledger.epsilon) == (head, spent)
        assert spent == epsilon([STEP, STEP], DELTA)
        assert ledger.knows(first.digest)
        assert not ledger.knows("0" * 64)
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("limit", [0.0, -1.0, math.nan, 0.1, -math.inf])
def test_a_refused_reservation_writes_nothing(tmp_path: Path, limit: float) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        before = path.read_bytes()
        with pytest.raises(BudgetExhausted, match=r"needs epsilon=.* more, .* of .* left; ask"):
            ledger.reserve(STEP, "a", limit)
        assert (path.read_bytes(), ledger.events) == (before, ())


@pytest.mark.parametrize("event", [NonPrivate("decoder"), Unbounded("?"), SampledGaussian("d", 9.0, 0.1, 1, replayable=True)])
def test_what_cannot_be_bounded_is_over_every_finite_limit_and_within_the_infinite_one(tmp_path: Path, event: Event) -> None:
    with Ledger(tmp_path / "ledger.jsonl", DELTA) as ledger:
        with pytest.raises(BudgetExhausted, match="needs epsilon=inf"):
            ledger.reserve(event, "a", 1e9)
        ledger.reserve(event, "a", math.inf)
        assert ledger.epsilon == math.inf
        with pytest.raises(BudgetExhausted):
            ledger.reserve(STEP, "b", 1e9)


def test_the_limit_counts_everything_not_one_round(tmp_path: Path) -> None:
    one = epsilon([STEP], DELTA)
    with Ledger(tmp_path / "ledger.jsonl", DELTA) as ledger:
        ledger.reserve(STEP, "a", 1.1 * one)
        with pytest.raises(BudgetExhausted):
            ledger.reserve(STEP, "b", 1.1 * one)


def test_a_second_opener_is_told_to_wait_and_the_lock_ends_with_the_holder(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger, pytest.raises(LedgerBusy, match="wait"):
        Ledger(path, DELTA)
    with pytest.raises(LedgerBusy, match="open it again"):
        ledger.reserve(STEP, "a", 8.0)
    Ledger(path, DELTA).close()


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan, math.inf])
def test_a_delta_that_is_none_is_refused(tmp_path: Path, delta: float) -> None:
    with pytest.raises(MechanismRefused):
        Ledger(tmp_path / "ledger.jsonl", delta)


def test_one_group_of_patients_has_one_delta_and_a_refused_opening_frees_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    Ledger(path, DELTA).close()
    with pytest.raises(MechanismRefused, match="one delta"):
        Ledger(path, 1e-3)
    Ledger(path, DELTA).close()


def test_a_reservation_releases_one_value_and_that_value_again_for_free(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        reservation = ledger.reserve(STEP, "a", 8.0)
        assert ledger.released(reservation) is None
        ledger.release(reservation, "1" * 64)
        size = path.stat().st_size
    with Ledger(path, DELTA) as ledger:
        ledger.release(reservation, "1" * 64)
        assert path.stat().st_size == size
        with pytest.raises(MechanismRefused, match="another value"):
            ledger.release(reservation, "2" * 64)
        assert ledger.released(reservation) == "1" * 64


def test_what_is_out_cannot_be_given_up(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.jsonl", DELTA) as ledger:
        reservation = ledger.reserve(STEP, "a", 8.0)
        ledger.release(reservation, "1" * 64)
        ledger.abandon(reservation)
        ledger.release(reservation, "1" * 64)
        assert ledger.standing(STEP, "a") == reservation


def test_what_was_given_up_stays_spent_and_releases_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        reservation = ledger.reserve(STEP, "a", 8.0)
        assert ledger.standing(STEP, "a") == reservation
        ledger.abandon(reservation)
        ledger.abandon(reservation)
        assert ledger.standing(STEP, "a") is None
        with pytest.raises(MechanismRefused, match="given up"):
            ledger.release(reservation, "1" * 64)
        assert ledger.events == (STEP,)
        again = ledger.reserve(STEP, "a", 8.0)
        assert ledger.standing(STEP, "a") == again
        assert ledger.standing(STEP, "b") is None
        assert ledger.standing(SampledGaussian("decoder", 5.0, 0.25, 5), "a") is None


@settings(deadline=None, max_examples=40)
@given(bodies=st.lists(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=5), max_size=3), max_size=6))
def test_a_chain_reads_back_as_it_was_written(bodies: list[dict[str, object]]) -> None:
    raw, expected, head = b"", [], START
    for sequence, content in enumerate(bodies):
        body = {**content, "sequence": sequence}
        head = chained(head, body)
        raw += written(body, head)
        expected.append((body, head))
    assert read_chain(raw) == (expected, b"")


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    raw = SAMPLE
    place = data.draw(st.integers(0, len(raw) - 2))          # the very last byte only ends the line
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != raw[place]))
    with pytest.raises(LedgerCorrupt):
        read_chain(raw[:place] + bytes([byte]) + raw[place + 1 :])


@settings(deadline=None, max_examples=100)
@given(cut=st.integers(0, 10_000))
def test_a_cut_file_loses_at_most_the_record_being_written(cut: int) -> None:
    raw = SAMPLE[: cut % (len(SAMPLE) + 1)]
    records, remnant = read_chain(raw)
    assert len(records) >= raw.count(b"\n")
    assert len(remnant) <= max(len(line) for line in SAMPLE.split(b"\n"))


def test_a_torn_last_line_is_dropped_noted_and_the_ledger_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        ledger.reserve(STEP, "a", 8.0)
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"digest":"12')
    with Ledger(path, DELTA) as ledger:
        assert ledger.events == (STEP,)
        ledger.reserve(STEP, "b", 8.0)
    assert path.read_bytes().startswith(whole)
    assert b'"kind":"recovered"' in path.read_bytes()
    with Ledger(path, DELTA) as ledger:
        assert ledger.events == (STEP, STEP)


def test_a_record_that_lost_only_its_line_end_was_spent(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        ledger.reserve(STEP, "a", 8.0)
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    with Ledger(path, DELTA) as ledger:
        assert ledger.events == (STEP,)
        ledger.reserve(STEP, "b", 8.0)
    Ledger(path, DELTA).close()


def test_a_ledger_torn_at_birth_starts_again(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"digest":"')
    with Ledger(path, DELTA) as ledger:
        assert ledger.events == ()
        ledger.reserve(STEP, "a", 8.0)


def test_two_ledgers_with_one_history_do_not_share_reservations(tmp_path: Path) -> None:
    with Ledger(tmp_path / "one", DELTA) as one, Ledger(tmp_path / "two", DELTA) as two:
        foreign = one.reserve(STEP, "a", 8.0)
        two.reserve(STEP, "a", 8.0)
        with pytest.raises(MechanismRefused, match="not in this site's ledger"):
            two.release(foreign, "1" * 64)


def test_an_event_of_a_later_version_is_kept_and_costs_infinity(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        head = ledger.head
    body = {"sequence": 1, "kind": "reserved", "purpose": "x", "event": {"kind": "Laplace", "scale": 1.0}}
    path.write_bytes(path.read_bytes() + written(body, chained(head, body)))
    with Ledger(path, DELTA) as ledger:
        assert ledger.epsilon == math.inf


def test_a_record_of_a_later_version_is_not_skipped(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        head = ledger.head
    body = {"sequence": 1, "kind": "refund"}
    path.write_bytes(path.read_bytes() + written(body, chained(head, body)))
    with pytest.raises(LedgerCorrupt, match="unknown to this version"):
        Ledger(path, DELTA)


def test_a_disk_that_refuses_a_write_stops_the_ledger_rather_than_the_charge(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, DELTA) as ledger:
        whole = path.read_bytes()
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
            with pytest.raises(LedgerCorrupt, match="free disk space"):
                ledger.reserve(STEP, "a", 8.0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
        with pytest.raises(LedgerCorrupt, match="start the site again"):
            ledger.reserve(STEP, "a", 8.0)
    with Ledger(path, DELTA) as ledger:
        assert ledger.events == ()
        ledger.reserve(STEP, "a", 8.0)


@pytest.mark.slow
def test_three_hundred_rounds_of_two_stages_stay_fast(tmp_path: Path) -> None:
    other = SampledGaussian("generator", 6.0, 0.2, 5)
    with Ledger(tmp_path / "ledger.jsonl", DELTA) as ledger:
        for number in range(20):
            ledger.reserve(STEP if number < 10 else other, str(number), 100.0)
        started = time.monotonic()
        for _ in range(300):
            assert ledger.epsilon > 0
        assert time.monotonic() - started < 5, "a known history must not be accounted again"
