"""What the steps of a secure sum have to say in words: signed keys, sealed letters, signed stories, shares of secrets.

Each has one spelling. A text that these functions would not have written is refused, so nothing travels beside it.
Laws: keys_in(keys_text(e)) == e, and so for stories, letters, shares and names.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Literal, TypeVar

from privacy.errors import SumRefused
from privacy.masking import KEY_BYTES, LETTER_BYTES
from privacy.secure_sum import PAYLOAD_TYPE, STORY_TYPE, Revealed
from privacy.shamir import PRIME, SHARE_BYTES
from privacy.signing import Envelope

Step = Literal["keys", "letters", "numbers", "story", "shares"]
STEPS: Final[tuple[Step, ...]] = ("keys", "letters", "numbers", "story", "shares")
Said = TypeVar("Said")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,30}")
_KEYID: Final = re.compile(r"[0-9a-f]{64}")
_SIGNATURE_BYTES: Final = 72                                 # at most, of ECDSA on P-256 in DER


def signed_text(envelope: Envelope) -> str:
    """One site's signed keys, or its signed story."""
    return _spelled(envelope)


def keys_in(text: str) -> Envelope:
    """The signed keys in a text; who signed them is not looked at (privacy.secure_sum.read_keys)."""
    return _read(text, lambda found: _envelope(found, PAYLOAD_TYPE, _keys), signed_text)


def story_in(text: str) -> Envelope:
    """The signed story in a text; who signed it is not looked at (privacy.secure_sum.Summand.reveal)."""
    return _read(text, lambda found: _envelope(found, STORY_TYPE, _story), signed_text)


def letters_text(letters: Mapping[str, bytes]) -> str:
    """Letters by the site at their other end. They are sealed: only that site opens them."""
    return _spelled({site: letter.hex() for site, letter in letters.items()})


def letters_in(text: str) -> dict[str, bytes]:
    """The letters in a text, each of the one length that letters have."""
    length = LETTER_BYTES + 2 * SHARE_BYTES
    return _read(text, lambda found: {_name(site): _bytes(letter, length) for site, letter in found.items()}, letters_text)


def shares_text(revealed: Revealed) -> str:
    """What one site gives of the others' secrets."""
    kinds = {"seeds": revealed.seeds, "keys": revealed.keys}
    return _spelled({kind: {site: hex(share) for site, share in shares.items()} for kind, shares in kinds.items()})


def shares_in(text: str) -> Revealed:
    """The shares in a text."""
    return _read(text, lambda found: Revealed(_shares(found["seeds"]), _shares(found["keys"])), shares_text)


def gathered_text(signed: Mapping[str, str]) -> str:
    """What several sites signed, each as its own text, by site."""
    return _spelled(signed)


def gathered_in(text: str, read: Callable[[str], Envelope]) -> dict[str, Envelope]:
    """The envelopes in a text, by the site that each is said to be from; `read` is keys_in or story_in."""
    texts = _read(text, lambda found: {_name(site): str(said) for site, said in found.items()}, gathered_text)
    return {site: read(said) for site, said in texts.items()}


def names_text(sites: Collection[str]) -> str:
    """Names of sites."""
    return _spelled(sorted(sites))


def names_in(text: str) -> tuple[str, ...]:
    """The names in a text, sorted."""
    return _read(text, lambda found: tuple(_name(site) for site in found), names_text)


def _read(text: str, parsed: Callable[[Any], Said], spelled: Callable[[Said], str]) -> Said:
    try:
        said = parsed(json.loads(text))
        exact = spelled(said) == text
    except (AttributeError, KeyError, IndexError, RecursionError, TypeError, ValueError) as error:
        raise SumRefused("a step of the secure sum was not said as it must be; the sender runs another version") from error
    if not exact:
        raise SumRefused("a step of the secure sum says more than it may; the sender runs another version")
    return said


def _spelled(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _envelope(found: Any, kind: str, fields: Callable[[Any], dict[str, object]]) -> Envelope:  # noqa: ANN401 - whatever came
    signature = found["signatures"][0]
    raw = base64.b64decode(signature["sig"])
    if not (_KEYID.fullmatch(signature["keyid"]) and len(raw) <= _SIGNATURE_BYTES):
        raise ValueError("signature")
    payload = json.dumps(fields(json.loads(base64.b64decode(found["payload"]))))
    return {
        "payloadType": kind,
        "payload": base64.b64encode(payload.encode()).decode(),
        "signatures": [{"keyid": signature["keyid"], "sig": base64.b64encode(raw).decode()}],
    }


def _keys(said: Mapping[str, str]) -> dict[str, object]:
    letters, masks = (_bytes(said[key], KEY_BYTES).hex() for key in ("letters", "masks"))
    return {"site": _name(said["site"]), "context": str(said["context"]), "letters": letters, "masks": masks}


def _story(said: Mapping[str, Any]) -> dict[str, object]:
    letters, arrived = ([_name(site) for site in sorted(said[key])] for key in ("letters", "arrived"))
    return {"site": _name(said["site"]), "context": str(said["context"]), "letters": letters, "arrived": arrived}


def _shares(found: Mapping[str, str]) -> dict[str, int]:
    shares = {_name(site): int(share, 16) for site, share in found.items()}
    if not all(0 <= share < PRIME for share in shares.values()):
        raise ValueError("share")
    return shares


def _bytes(text: str, length: int) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != length:
        raise ValueError("length")
    return raw


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("name")
    return text
