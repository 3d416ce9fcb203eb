"""Every reply of a whole run is searched for what was planted in the patients, in every encoding a careless line might use."""

from __future__ import annotations

import base64
import json
import struct
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from braing3n_core.data.cohort import Patient, Scan
from client.site import Site
from privacy.egress import ENDS, Cleared
from tests.client.studies import Scans, request, site, study
from tests.small import SMALL
from tests.summed import begun, sites, summed, taken

NAME, AGE, VOXEL, PATIENTS = "sub-Zq7hX4wV", 61.803398875, 0.7182818284, 37
WORDS = [NAME, NAME.removeprefix("sub-"), "Kreuzlingen-Ost", "/data/Kreuzlingen-Ost/participants.tsv", "mild-aphasia-Wq"]
NUMBERS = [AGE, VOXEL, 1234.56789]                           # the last is a scan's ventricle volume
PLAN = study()


def person(number: int) -> Patient:
    """One of a hospital of people who all carry the secrets."""
    volume = torch.rand((1, *SMALL.shape), generator=torch.Generator().manual_seed(number))
    volume[0, :2] = VOXEL
    conditions = {"age": AGE, "sex": "F", "diagnosis": None, "modality": "T1w", "ventricles": 1234.56789, "lesions": None}
    return Patient(f"{NAME}{number}", (Scan(volume, conditions),), held_out=False)


def spellings_of_word(word: str) -> Iterator[bytes]:
    for text in {word, word.lower(), word.upper(), word[::-1]}:
        plain = text.encode()
        yield from (plain, text.encode("utf-16-le"), text.encode("utf-16-be"))
        yield from (plain.hex().encode(), plain.hex().upper().encode())
        yield urllib.parse.quote(text, safe="").encode()
        for lead in range(3):                                # base64 of something longer that holds the word at any place
            inner = base64.b64encode(b"\0" * lead + plain)
            yield inner[4 if lead else 0 : len(inner) // 4 * 4 - 4]


def spellings_of_number(number: float) -> Iterator[bytes]:
    for order in "<>":
        for kind in "fd":                                    # two bytes of a half precision number are found by chance
            packed = struct.pack(order + kind, number)
            yield from (packed, packed.hex().encode(), base64.b64encode(packed).rstrip(b"="))
    yield from (f"{number:.{digits}g}".encode() for digits in range(5, 12))
    yield from (f"{number:.{digits}f}".encode() for digits in range(3, 8))


def spoken(reply: Cleared) -> bytes:
    """All bytes of a reply: its header as text, its values as they travel and as text."""
    values = np.empty(0, np.float32) if reply.values is None else reply.values
    header = json.dumps({name: str(value) for name, value in reply.header.items()})
    return header.encode() + b"\n" + values.tobytes() + b"\n" + ",".join(map(repr, values.tolist())).encode()


def secrets_in(reply: Cleared) -> list[str]:
    said = spoken(reply)
    found = [word for word in WORDS if any(spelling in said for spelling in spellings_of_word(word))]
    found += [str(number) for number in NUMBERS if any(spelling in said for spelling in spellings_of_number(number))]
    if reply.values is not None and np.isin(np.float32(NUMBERS), reply.values).any():
        found.append("a value")
    counts = {PATIENTS, PATIENTS - 1, PATIENTS * int(np.prod(SMALL.shape))}
    return found + [name for name, value in reply.header.items() if value in counts]


def whole_run(folder: Path) -> Iterator[Cleared]:
    """Ready, every round of every stage, one round again, and every kind of refusal that patients can cause."""
    here = site(folder, PLAN, Scans([person(number) for number in range(PATIENTS)]))
    yield here.ready()
    for stage in PLAN.stages:
        for number in range(1, stage.rounds + 1):
            yield here.round(request(PLAN, stage.name, number))
    yield here.round(request(PLAN, "generator", 2))
    yield here.round(request(PLAN, "decoder", 1, shift=1.0))
    yield here.round(replace(request(PLAN), plan="0" * 64))
    for error in (ValueError(*WORDS), FileNotFoundError(2, WORDS[2], WORDS[3]), KeyError(NAME, AGE, VOXEL)):
        sources = {"model_source": _model, "cohort_source": Scans(error=error)}
        broken = Site("north", PLAN, folder / "broken", folder / WORDS[2], **sources)  # type: ignore[arg-type]  # broken ones
        yield from (broken.ready(), broken.round(request(PLAN)))
    yield from (here.round(request(study(study="another"))), site(folder, study(study="another")).round(request(PLAN)))


def _model(plan: object) -> object:
    raise RuntimeError(f"{NAME} of {AGE} with {VOXEL}")


def test_no_reply_of_a_whole_run_holds_a_planted_secret(tmp_path: Path) -> None:
    replies = list(whole_run(tmp_path))
    assert sum(reply.header["kind"] == "update" for reply in replies) >= 5
    assert sum(reply.header["kind"] == "refusal" for reply in replies) >= 7
    assert [found for reply in replies if (found := secrets_in(reply))] == []


@pytest.mark.slow
def test_no_number_on_how_well_the_model_fits_holds_a_planted_secret(tmp_path: Path) -> None:
    plan = study(privacy={"mechanism": "local", "epsilon": 8.0, "delta": 1e-5, "fit_share": 0.05})
    here = site(tmp_path, plan, Scans([person(number) for number in range(PATIENTS)]))
    replies = [here.round(replace(request(plan, stage.name, shift=0.1), end=end)) for stage in plan.stages for end in ENDS]
    assert [reply.header["kind"] for reply in replies] == ["fit"] * 4
    assert [found for reply in replies if (found := secrets_in(reply))] == []


@pytest.mark.slow
def test_no_step_of_a_secure_sum_holds_a_planted_secret(tmp_path: Path) -> None:
    plan = summed()
    here = sites(plan, tmp_path, [person(number) for number in range(PATIENTS)])
    replies = []
    for number in (1, 2):
        summing = begun(plan, number)
        while not summing.done:
            replies += [answer for _, answer in taken(summing, here).values()]
    assert [reply.header["kind"] for reply in replies].count("masked") == 6
    assert [reply.header["kind"] for reply in replies].count("sum") == 24
    assert [found for reply in replies if (found := secrets_in(reply))] == []


PLANTED = [
    *({"note": word} for word in WORDS),
    {"note": NAME.encode().hex()}, {"note": base64.b64encode(b"id=" + NAME.encode() + b";").decode()},
    {"note": base64.b64encode(b"n " + NAME.encode()).decode()}, {"note": NAME[::-1]}, {"age": f"{AGE:.4f}"}, {"age": AGE},
    {"loss": f"{VOXEL:.6g}"}, {"count": PATIENTS}, {"batch": PATIENTS - 1}, {"raw": struct.pack("<d", AGE).hex()},
    {"raw": base64.b64encode(struct.pack(">f", VOXEL)).decode()},
]  # fmt: skip


@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_the_search_finds_what_a_header_would_give_away(tmp_path: Path, planted: dict[str, object]) -> None:
    reply = site(tmp_path).ready()
    object.__setattr__(reply, "header", dict(reply.header) | planted)
    assert secrets_in(reply)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_search_finds_one_value_among_the_weights(tmp_path: Path, number: float) -> None:
    reply = site(tmp_path).ready()
    values = np.linspace(-1, 1, 999, dtype=np.float32)
    values[500] = number
    object.__setattr__(reply, "values", values)
    assert secrets_in(reply)
