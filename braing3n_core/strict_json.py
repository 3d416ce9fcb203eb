"""JSON from a stranger: one meaning or none."""

from __future__ import annotations

import json
from collections.abc import Mapping

from braing3n_core.errors import IntegrityError

Value = Mapping[str, object]


def parsed(raw: bytes | str, what: str) -> Value:
    """The one JSON object in `raw`. Raises IntegrityError, naming `what`, unless every reader would read the same.

    Refused: a key that stands twice in one object (readers disagree which one counts), NaN and infinity, anything that is
    not an object, not UTF-8, or too deep.
    """
    try:
        value = json.loads(raw, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} cannot be read: {' '.join(str(error).split())[:120]}; get the file again") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{what} is not a JSON object; get the file again")
    return value


def canonical(value: object) -> bytes:
    """Sorted keys, no spaces, ASCII: one value, one text. Raises ValueError on NaN or infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return found


def _no_number(text: str) -> object:
    raise ValueError(f"{text} is no JSON number")
