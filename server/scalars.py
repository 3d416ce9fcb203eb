"""Scalars of a run as TensorBoard reads them: what was charged, who answered, how much travelled. No value of a patient.

An event file is a row of records, each `length, masked CRC-32C of the length, data, masked CRC-32C of the data`, little-endian;
the data of one is the protocol buffer `Event` (tensorflow/core/util/event.proto). The few fields that scalars need are written
here: TensorBoard itself, with a web server and its packages, is for whoever looks, not for the server.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

FILE = "events.out.tfevents.0.braing3n"
_POLYNOMIAL = 0x82F63B78                                     # CRC-32C, reversed (RFC 3720, appendix B.4)
_MASK = 0xA282EAD8                                           # added after a turn by 15 bits, so that a CRC of a CRC is harmless


def append_scalars(path: Path, time: float, step: int, values: Mapping[str, float]) -> None:
    """Add one event with these tags to the file at `path`, which is begun if it is not there. `time` in seconds since 1970."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        if not file.tell():
            file.write(_record(_double(1, time) + _bytes(3, b"brain.Event:2")))
        summary = b"".join(_bytes(1, _bytes(1, tag.encode()) + _float(2, value)) for tag, value in values.items())
        file.write(_record(_double(1, time) + _varint(2 << 3) + _varint(step) + _bytes(5, summary)))


def scalars_of(row: Mapping[str, object]) -> dict[str, float]:
    """Tags and values of one line of rounds.jsonl; a site whose epsilon is not finite has none."""
    found = {f"epsilon/{site}": value for site, value in _numbers(row.get("epsilon"))}
    for key in ("replied", "refused", "missing"):
        names = row.get(key)
        found[f"sites/{key}"] = float(len(names)) if isinstance(names, list | dict) else 0.0
    numbers = row.get("numbers")
    return found | {"traffic/megabytes a site": 4 * numbers / 1e6 if isinstance(numbers, int) else 0.0}


def _numbers(rows: object) -> Iterator[tuple[str, float]]:
    for name, value in rows.items() if isinstance(rows, Mapping) else ():
        if isinstance(value, int | float):
            yield str(name), float(value)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _table()[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


@cache
def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_POLYNOMIAL if value & 1 else 0)
        rows.append(value)
    return tuple(rows)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _float(field: int, value: float) -> bytes:
    return _varint(field << 3 | 5) + struct.pack("<f", value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; not for negative numbers."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))
