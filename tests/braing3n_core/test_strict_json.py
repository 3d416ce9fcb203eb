from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from braing3n_core.errors import IntegrityError
from braing3n_core.strict_json import canonical, parsed

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), values))
def test_what_is_written_reads_back(value: dict[str, object]) -> None:
    assert parsed(canonical(value), "it") == value


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a": 1, "a": 2}', "'a' stands twice"),
        (b'{"outer": {"a": 1, "a": 1}}', "'a' stands twice"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": -Infinity}', "-Infinity is no JSON number"),
        (b"[1]", "not a JSON object"),
        (b"", "cannot be read"),
        (b'{"a": 1} {"b": 2}', "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
    ],
)
def test_what_two_readers_would_read_differently_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(IntegrityError, match=f"^the file .*{why}"):
        parsed(raw, "the file")
