"""The one door: what it lets out, what that cost, and what it wrote down before letting it out."""

from __future__ import annotations

import ast
import hashlib
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from braing3n_core import errors
from privacy.egress import Cleared, Egress, Masked, Ready, Refusal, RefusalCode, SumWords, Update, purpose_of
from privacy.errors import BudgetExhausted, EgressRefused, LedgerBusy, LedgerCorrupt, MechanismRefused, PrivacyError
from privacy.events import NonPrivate, SampledGaussian, SecureSummed
from privacy.ledger import Ledger, Reservation
from privacy.secure_sum import Revealed, Summand, Terms
from privacy.signing import SigningKey
from privacy.sum_words import letters_text, shares_text, signed_text

ROOT = Path(__file__).parents[2]
PLAN, START = "a" * 64, "b" * 64
STEP = SampledGaussian("decoder", 4.0, 0.25, 5)
VALUES = np.linspace(-1, 1, 7, dtype=np.float32)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.jsonl", 1e-5) as opened:
        yield opened


@pytest.fixture
def egress(ledger: Ledger, tmp_path: Path) -> Egress:
    return Egress(ledger, tmp_path / "audit.jsonl", "site-a")


def audit(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]


def paid(ledger: Ledger, number: int = 1) -> Reservation:
    return ledger.reserve(STEP, purpose_of(PLAN, "decoder", number), 8.0)


def update(reservation: Reservation, values: np.ndarray = VALUES, **changes: object) -> Update:
    fields = {"site": "site-a", "plan": PLAN, "stage": "decoder", "round": 1, "start": START} | changes
    return Update(**fields, reservation=reservation, values=values)  # type: ignore[arg-type]  # wrong types are the test


def test_a_paid_update_leaves_and_is_written_down_first(ledger: Ledger, egress: Egress, tmp_path: Path) -> None:
    reservation = paid(ledger)
    cleared = egress.send(update(reservation), expected_size=7)
    sha256 = hashlib.sha256(VALUES.astype("<f4").tobytes()).hexdigest()
    assert cleared.values is not None
    assert np.array_equal(cleared.values, VALUES)
    assert dict(cleared.header) == {
        "kind": "update", "site": "site-a", "plan": PLAN, "stage": "decoder", "round": 1, "start": START, "size": 7,
        "sha256": sha256, "epsilon": ledger.epsilon, "ledger_head": ledger.head,
    }  # fmt: skip
    (line,) = audit(tmp_path)
    assert line["header"] == dict(cleared.header)
    assert line["charged"] == {"kind": "SampledGaussian", "stage": "decoder", "noise_multiplier": 4.0, "sample_rate": 0.25,
                               "steps": 5, "replayable": False}  # fmt: skip
    assert (line["reservation"], line["ledger_head"]) == (reservation.digest, ledger.head)
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o077 == 0


def test_free_messages_are_constants(egress: Egress, tmp_path: Path) -> None:
    assert dict(egress.send(Ready("site-a", PLAN)).header) == {"kind": "ready", "site": "site-a", "plan": PLAN}
    refused = egress.send(Refusal("site-a", RefusalCode.BUDGET_EXHAUSTED))
    assert dict(refused.header) == {"kind": "refusal", "site": "site-a", "code": "budget-exhausted", "exit_code": 5}
    assert refused.values is None
    assert [line["charged"] for line in audit(tmp_path)] == [None, None]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_no_value_that_is_not_finite_leaves(ledger: Ledger, egress: Egress, poison: float, tmp_path: Path) -> None:
    values = VALUES.copy()
    values[3] = poison
    with pytest.raises(EgressRefused, match="NaN or infinite"):
        egress.send(update(paid(ledger), values), expected_size=7)
    assert not (tmp_path / "audit.jsonl").exists()


@pytest.mark.parametrize(
    "values",
    [VALUES.astype(np.float64), VALUES.astype(">f4"), VALUES[None], VALUES.tolist(), VALUES.astype(object), None,
     VALUES.view(np.recarray), np.ma.masked_array(VALUES), VALUES[:6], np.empty(0, np.float32), np.append(VALUES, VALUES)],
)  # fmt: skip
def test_only_float32_of_the_expected_size_leaves(ledger: Ledger, egress: Egress, values: np.ndarray) -> None:
    with pytest.raises(EgressRefused):
        egress.send(update(paid(ledger), values), expected_size=7)


@pytest.mark.parametrize("size", [None, 0, -1, True, 7.0, math.nan, 1 << 40])
def test_an_update_without_an_expected_size_stays(ledger: Ledger, egress: Egress, size: object) -> None:
    with pytest.raises(EgressRefused):
        egress.send(update(paid(ledger)), expected_size=size)  # type: ignore[arg-type]  # wrong types are the test


@pytest.mark.parametrize(
    "changes",
    [{"site": "site-b"}, {"plan": "c" * 64}, {"plan": "sub-0042"}, {"stage": "generator"}, {"stage": "sub-0042 has a tumour"},
     {"round": 2}, {"round": 0}, {"round": True}, {"round": 1.0}, {"round": math.nan}, {"start": "71.5"},
     {"start": START + "\n"}, {"stage": None}],
)  # fmt: skip
def test_a_header_says_only_what_was_paid_for(ledger: Ledger, egress: Egress, changes: dict[str, object]) -> None:
    reservation = paid(ledger)
    with pytest.raises(EgressRefused):
        egress.send(update(reservation, **changes), expected_size=7)
    assert ledger.released(reservation) is None


def test_a_charge_for_another_stage_does_not_pay(ledger: Ledger, egress: Egress) -> None:
    cheap = ledger.reserve(STEP, purpose_of(PLAN, "generator", 1), 8.0)
    with pytest.raises(EgressRefused, match="another stage"):
        egress.send(update(cheap, stage="generator"), expected_size=7)


class Loose(str):
    """A text that equals the site's name and prints as something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return "age 71"


class MoreThanReady(Ready):
    pass


@pytest.mark.parametrize(
    "message",
    [None, {"loss": 0.3}, VALUES, "ready", MoreThanReady("site-a", PLAN), Refusal("site-a", "too few patients: 17"),
     Refusal("site-a", "internal"), Ready("site-b", PLAN), Ready("site-a", "17 patients"), Ready("site-a", Loose(PLAN))],
)  # fmt: skip
def test_what_is_not_on_the_list_stays(egress: Egress, message: object) -> None:
    with pytest.raises(EgressRefused):
        egress.send(message)  # type: ignore[arg-type]  # wrong types are the test


def test_a_header_holds_plain_values_even_if_a_field_is_not(egress: Egress) -> None:
    header = egress.send(Ready(Loose("site-a"), PLAN)).header
    assert all(type(value) in (str, int, float) for value in header.values())
    with pytest.raises(TypeError):
        header["loss"] = 0.3  # type: ignore[index]  # that it cannot be written is the test


def test_what_was_checked_is_what_leaves(ledger: Ledger, egress: Egress) -> None:
    values = VALUES.copy()
    cleared = egress.send(update(paid(ledger), values), expected_size=7)
    values[:] = math.nan
    assert cleared.values is not None
    assert np.array_equal(cleared.values, VALUES)
    with pytest.raises(ValueError, match="read-only"):
        cleared.values[0] = 1


def test_one_reservation_releases_one_value_across_restarts(tmp_path: Path) -> None:
    other = VALUES + np.float32(1)
    with Ledger(tmp_path / "ledger.jsonl", 1e-5) as ledger:
        reservation = paid(ledger)
        Egress(ledger, tmp_path / "audit.jsonl", "site-a").send(update(reservation), expected_size=7)
    with Ledger(tmp_path / "ledger.jsonl", 1e-5) as ledger:
        egress, spent = Egress(ledger, tmp_path / "audit.jsonl", "site-a"), ledger.epsilon
        with pytest.raises(MechanismRefused, match="another value"):
            egress.send(update(reservation, other), expected_size=7)
        again = egress.send(update(reservation), expected_size=7)
        assert np.array_equal(again.values, VALUES)  # type: ignore[arg-type]  # an update has values
        assert ledger.epsilon == spent
    assert len(audit(tmp_path)) == 2


def test_a_reservation_of_another_ledger_pays_nothing(egress: Egress, tmp_path: Path) -> None:
    with Ledger(tmp_path / "other.jsonl", 1e-5) as other:
        foreign = paid(other)
    with pytest.raises(MechanismRefused, match="not in this site's ledger"):
        egress.send(update(foreign), expected_size=7)
    forged = Reservation(1, SampledGaussian("decoder", 1e6, 0.25, 5), purpose_of(PLAN, "decoder", 1), "0" * 64)
    with pytest.raises(MechanismRefused, match="not in this site's ledger"):
        egress.send(update(forged), expected_size=7)


def test_a_non_private_update_is_audited_at_its_price(ledger: Ledger, egress: Egress, tmp_path: Path) -> None:
    reservation = ledger.reserve(NonPrivate("decoder"), purpose_of(PLAN, "decoder", 1), math.inf)
    assert egress.send(update(reservation), expected_size=7).header["epsilon"] == math.inf
    assert audit(tmp_path)[0]["header"]["epsilon"] == "inf"  # type: ignore[index]  # a header is an object
    assert audit(tmp_path)[0]["charged"] == {"kind": "NonPrivate", "stage": "decoder"}


def test_a_ledger_that_lost_its_end_is_found_out_by_the_audit_log(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, 1e-5) as ledger:
        Egress(ledger, tmp_path / "audit.jsonl", "site-a").send(update(paid(ledger)), expected_size=7)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:1]))
    with Ledger(path, 1e-5) as shorter, pytest.raises(LedgerCorrupt, match="lost what line 1"):     # a valid chain by itself
        Egress(shorter, tmp_path / "audit.jsonl", "site-a")


def test_a_torn_audit_line_is_cut_and_an_unreadable_one_is_refused(ledger: Ledger, egress: Egress, tmp_path: Path) -> None:
    egress.send(Ready("site-a", PLAN))
    path = tmp_path / "audit.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"charged": nu')
    Egress(ledger, path, "site-a").send(Ready("site-a", PLAN))
    assert len(audit(tmp_path)) == 2
    path.write_bytes(whole + b'{"charged": nu')
    Egress(None, path, "site-a").send(Refusal("site-a", RefusalCode.LEDGER_BUSY))       # beside the holder of the ledger
    assert len(audit(tmp_path)) == 2
    Egress(ledger, path, "site-a")
    path.write_bytes(b"nothing to see\n" + whole)
    with pytest.raises(LedgerCorrupt, match="line 1"):
        Egress(ledger, path, "site-a")


def test_without_its_ledger_a_site_can_only_refuse(tmp_path: Path) -> None:
    egress = Egress(None, tmp_path / "audit.jsonl", "site-a")
    assert egress.send(Refusal("site-a", RefusalCode.LEDGER_BUSY)).header["exit_code"] == 6
    for message in (Ready("site-a", PLAN), update(Reservation(1, STEP, purpose_of(PLAN, "decoder", 1), "0" * 64))):
        with pytest.raises(EgressRefused, match="only refuse"):
            egress.send(message, expected_size=7)


@pytest.mark.slow
def test_nothing_but_the_egress_makes_a_cleared_message() -> None:
    with pytest.raises(EgressRefused, match=r"Egress\.send"):
        Cleared({"kind": "ready"}, None, object())
    makers = {
        path.relative_to(ROOT).as_posix()
        for package in ("privacy", "braing3n_core", "client", "server", "simulations")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Cleared")
    }
    assert makers == {"privacy/egress.py"}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (RefusalCode.BAD_SETTINGS, errors.UsageError()),
        (RefusalCode.PLAN_REFUSED, errors.PlanRefused()),
        (RefusalCode.DATA_REFUSED, errors.DataRefused()),
        (RefusalCode.BUDGET_EXHAUSTED, BudgetExhausted()),
        (RefusalCode.LEDGER_BUSY, LedgerBusy()),
        (RefusalCode.INTEGRITY, errors.IntegrityError()),
        (RefusalCode.INTEGRITY, LedgerCorrupt()),
        (RefusalCode.MECHANISM_REFUSED, MechanismRefused()),
        (RefusalCode.EGRESS_REFUSED, EgressRefused()),
        (RefusalCode.REQUEST_REFUSED, errors.ReplyRefused()),
        (RefusalCode.INTERRUPTED, KeyboardInterrupt()),
        (RefusalCode.INTERNAL, ValueError()),
    ],
)
def test_a_code_ends_a_command_as_its_error_would(code: RefusalCode, error: BaseException) -> None:
    assert code.exit_code == errors.exit_code(error)


def test_every_code_has_an_exit_code() -> None:
    assert all(code.exit_code > 0 for code in RefusalCode)


SUM = SecureSummed("decoder", 1e9, 2.0**14, 7, 0.25, 1, 2)
HIDDEN = np.arange(7, dtype=np.uint32) * 613566756
SHARES = shares_text(Revealed({"site-a": 2**500 + 7, "site-b": 3}, {}))


def masked(reservation: Reservation, values: np.ndarray = HIDDEN, **changes: object) -> Masked:
    fields = {"site": "site-a", "plan": PLAN, "stage": "decoder", "round": 1, "attempt": 1, "start": START} | changes
    return Masked(**fields, reservation=reservation, values=values)  # type: ignore[arg-type]  # wrong types are the test


def words(step: str, said: str, **changes: object) -> SumWords:
    fields = {"site": "site-a", "plan": PLAN, "stage": "decoder", "round": 1, "attempt": 1, "step": step, "said": said}
    return SumWords(**fields | changes)  # type: ignore[arg-type]  # wrong types are the test


def test_masked_numbers_leave_once_they_are_paid_for_as_if_they_were_open(ledger: Ledger, egress: Egress) -> None:
    reservation = ledger.reserve(SUM, purpose_of(PLAN, "decoder", 1, 1), 8.0)
    cleared = egress.send(masked(reservation), 7)
    assert cleared.header["epsilon"] == ledger.epsilon > 0
    assert cleared.values is not None
    assert np.array_equal(cleared.values, HIDDEN)
    assert not cleared.values.flags.writeable
    egress.send(masked(reservation), 7)                      # the same again is free
    with pytest.raises(MechanismRefused, match="another value"):
        egress.send(masked(reservation, HIDDEN + np.uint32(1)), 7)


@pytest.mark.parametrize(
    "wrong", [{"attempt": 2}, {"attempt": 0}, {"attempt": True}, {"round": 2}, {"stage": "generator"}, {"start": "x"},
              {"values": VALUES}, {"values": HIDDEN[:6]}, {"values": HIDDEN.astype(np.int64)}, {"site": "site-b"}],
)  # fmt: skip
def test_masked_numbers_of_another_sum_do_not_leave(ledger: Ledger, egress: Egress, wrong: dict[str, object]) -> None:
    reservation = ledger.reserve(SUM, purpose_of(PLAN, "decoder", 1, 1), 8.0)
    with pytest.raises(EgressRefused):
        egress.send(masked(reservation, **wrong), 7)  # type: ignore[arg-type]  # wrong types are the test


def test_masked_numbers_cannot_be_paid_with_another_mechanism_s_charge(ledger: Ledger, egress: Egress) -> None:
    reservation = ledger.reserve(STEP, purpose_of(PLAN, "decoder", 1, 1), 8.0)
    with pytest.raises(EgressRefused, match="not for a secure sum"):
        egress.send(masked(reservation), 7)


def test_words_of_a_sum_are_free_and_the_log_holds_no_secret_of_them(egress: Egress, ledger: Ledger, tmp_path: Path) -> None:
    cleared = egress.send(words("shares", SHARES))
    assert cleared.header["said"] == SHARES
    assert ledger.events == ()
    (line,) = audit(tmp_path)
    assert line["header"]["said"] == hashlib.sha256(SHARES.encode()).hexdigest()  # type: ignore[index]  # a header is a table
    assert hex(2**500 + 7)[2:] not in (tmp_path / "audit.jsonl").read_text()


def test_words_that_are_none_or_belong_to_another_sum_do_not_leave(egress: Egress, tmp_path: Path) -> None:
    key = SigningKey.generate()
    agreed = Terms(("site-a", "site-b"), purpose_of(PLAN, "decoder", 1, 1), 4, 1.0, 2.0**14, 1e8, 100, 0, 0)
    keys = signed_text(Summand("site-a", agreed, {"site-a": key.public, "site-b": key.public}).advertise(key))
    assert egress.send(words("keys", keys)).header["step"] == "keys"
    for wrong in (
        words("keys", keys, attempt=2), words("keys", keys, round=2), words("letters", keys), words("shares", keys),
        words("keys", "sub-0042"), words("numbers", keys), words("else", keys), words("shares", SHARES, stage="Decoder"),
        words("letters", letters_text({"site-b": b"sub-0042"})), words("story", keys), words("shares", SHARES, plan="x"),
    ):  # fmt: skip
        with pytest.raises(PrivacyError):
            egress.send(wrong)
    assert len(audit(tmp_path)) == 1
