"""Keys that two sites agree on, masks made of them, letters that only the other can read: X25519, HKDF, AES-CTR, ChaCha20."""

from __future__ import annotations

import os
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.errors import SumRefused

KEY_BYTES: Final = 32
_NONCE: Final = 12
LETTER_BYTES: Final = _NONCE + 16                            # of a letter beyond its text: nonce and tag


class AgreementKey:
    """A key of one round. Its secret half leaves only as shares, and only if the site dropped out."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = X25519PrivateKey.generate() if secret is None else X25519PrivateKey.from_private_bytes(secret)

    @property
    def public(self) -> bytes:
        """32 bytes, for everybody."""
        return self._key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    @property
    def secret(self) -> bytes:
        """32 bytes, for sharing among the others."""
        raw, private, none = serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        return self._key.private_bytes(raw, private, none)

    def agreed(self, public: bytes, context: str) -> bytes:
        """32 bytes that this key's and the other's owner alone can compute, different for every context."""
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise SumRefused("a site sent no usable key; leave it out of the round") from error
        return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=context.encode()).derive(shared)


def mask(key: bytes, count: int) -> np.ndarray:
    """(count,) uint32 from AES-256 in counter mode. A key makes one mask and is never used again: the counter starts at 0."""
    encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(4 * count)) + encryptor.finalize(), dtype="<u4")


def sealed_letter(key: bytes, text: bytes, context: str) -> bytes:
    """`text` for the other owner of `key`, bound to `context`."""
    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, context.encode())


def opened_letter(key: bytes, letter: bytes, context: str) -> bytes:
    """The text of a letter that was sealed with `key` for `context`. Raises SumRefused on any other."""
    try:
        return ChaCha20Poly1305(key).decrypt(letter[:_NONCE], letter[_NONCE:], context.encode())
    except (InvalidTag, ValueError) as error:
        raise SumRefused("a letter of another site was changed on the way; drop the round") from error
