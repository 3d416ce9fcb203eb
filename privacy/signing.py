"""Keys and signatures: ECDSA on P-256 with SHA-256, PEM files, DSSE envelopes. The only file that signs or verifies.

P-256, because Flower's nodes and the OpenSSF Model Signing verifier take it and refuse Ed25519. The envelope is DSSE 1.0
(github.com/secure-systems-lab/dsse): what is signed is the type and the exact bytes of the payload, never a re-encoding.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from privacy.errors import KeyRefused, SignatureRefused

Envelope = Mapping[str, Any]                                 # DSSE, as JSON objects
SHORTEST_PASSPHRASE: Final = 16                              # characters; PKCS #8 stretches by 2,048 rounds alone
_LARGEST_KEY_FILE: Final = 1 << 16                           # bytes
_OPENSSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_CURVE: Final = ec.SECP256R1()
_ECDSA: Final = ec.ECDSA(hashes.SHA256())
_SPKI: Final = serialization.PublicFormat.SubjectPublicKeyInfo


@dataclass(frozen=True)
class PublicKey:
    """Who may be believed. Two keys are equal if their PEM is."""

    pem: bytes                                               # SubjectPublicKeyInfo, canonical PEM

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Raises KeyRefused unless `pem` is a public key on P-256; equal keys give equal objects."""
        try:
            key = serialization.load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyRefused("this is no public key in PEM; ask its owner for the .pub file") from error
        return cls(_public_pem(key))

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """The public key in a file. Raises KeyRefused."""
        return cls.from_pem(_read(path))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the key's DER, hex: what people compare by telephone."""
        return hashlib.sha256(_public(self).public_bytes(serialization.Encoding.DER, _SPKI)).hexdigest()

    @property
    def openssh(self) -> bytes:
        """The same key in the one-line form that Flower registers nodes by."""
        return _public(self).public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)

    def verify(self, data: bytes, signature: bytes) -> None:
        """Raises SignatureRefused unless this key's owner signed exactly `data`."""
        try:
            _public(self).verify(signature, data, _ECDSA)
        except InvalidSignature as error:
            raise SignatureRefused(f"the signature is not one of key {self.fingerprint[:16]} over these bytes") from error


class SigningKey:
    """A private key. Its only way to disk is `write`, readable by its owner alone; it is not copied or pickled."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key

    @classmethod
    def generate(cls) -> SigningKey:
        """A fresh key from the operating system's randomness."""
        return cls(ec.generate_private_key(_CURVE))

    @classmethod
    def load(cls, path: Path, passphrase: bytes | None = None) -> SigningKey:
        """The key in a file. Raises KeyRefused if others may read it, the passphrase is wrong, or it is no P-256 key."""
        content = _read(path, private=True)
        try:
            openssh = content.startswith(_OPENSSH)           # as `openssh` writes it
            load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
            key = load(content, passphrase)
        except TypeError as error:
            why = "is encrypted; give its passphrase" if passphrase is None else "is not encrypted; leave the passphrase out"
            raise KeyRefused(f"{path.name} {why}") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyRefused(f"{path.name} cannot be read: the passphrase is wrong or it is no private key in PEM") from error
        if not (isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)):
            raise KeyRefused(f"{path.name} is not a key on P-256; make one with this project's tools")
        return cls(key)

    def write(self, path: Path, passphrase: bytes | None = None) -> None:
        """Put the key at `path` (0600) and its public half at `path`.pub. Never replaces a file. Raises KeyRefused."""
        if passphrase is not None and not len(passphrase) >= SHORTEST_PASSPHRASE:
            raise KeyRefused(f"a passphrase needs at least {SHORTEST_PASSPHRASE} characters; six random words are good")
        how = serialization.BestAvailableEncryption(passphrase) if passphrase is not None else serialization.NoEncryption()
        pem = self._key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)
        _create(path, pem, 0o600)
        _create(path.with_name(f"{path.name}.pub"), self.public.pem, 0o644)

    def openssh(self) -> bytes:
        """The key, unencrypted, in the form that Flower's node reads. For a file in memory, never for a disk."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )

    @property
    def public(self) -> PublicKey:
        """What may be given away."""
        return PublicKey(_public_pem(self._key.public_key()))

    def sign(self, data: bytes) -> bytes:
        """The DER of an ECDSA signature. Two signatures of the same bytes differ; both are valid."""
        return self._key.sign(data, _ECDSA)

    def __reduce__(self) -> Any:  # noqa: ANN401 - what object declares
        raise TypeError("a private key is neither copied nor pickled; write it to a file of its own")


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is really signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sealed(payload_type: str, payload: bytes, keys: Iterable[SigningKey]) -> Envelope:
    """A DSSE envelope of `payload`, signed by each of `keys`."""
    data = pae(payload_type, payload)
    return {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": key.public.fingerprint, "sig": base64.b64encode(key.sign(data)).decode()} for key in keys],
    }


def opened(envelope: object, payload_type: str, signers: Sequence[PublicKey]) -> bytes:
    """The payload, once every one of `signers` is found to have signed it.

    Guarantee: the returned bytes are those that were signed, under the type that was signed. `keyid` decides nothing;
    signatures of others are ignored. Raises SignatureRefused naming the first signer without a valid signature.
    """
    if not signers:
        raise SignatureRefused("nobody was named whose signature is needed; name at least one public key")
    try:
        kind, payload, signatures = _parts(envelope)
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureRefused("this is not a DSSE envelope; ask for the file again") from error
    if kind != payload_type:
        raise SignatureRefused(f"the envelope holds {kind[:60]!r}, not {payload_type!r}; it was made for something else")
    data = pae(kind, payload)
    for signer in signers:
        if not any(_signed(signer, data, signature) for signature in signatures):
            raise SignatureRefused(f"key {signer.fingerprint[:16]} did not sign this; it was changed or signed by another")
    return payload


def unverified(envelope: object) -> bytes:
    """The payload of an envelope, whoever signed it or nobody. For readers who rely on none of it."""
    try:
        return _parts(envelope)[1]
    except (KeyError, TypeError, ValueError) as error:
        raise SignatureRefused("this is not a DSSE envelope; ask for the file again") from error


def _parts(envelope: Any) -> tuple[str, bytes, list[bytes]]:  # noqa: ANN401 - whatever a file held
    kind = envelope["payloadType"]
    if not isinstance(kind, str):
        raise TypeError("payloadType")
    signatures = [base64.b64decode(row["sig"], validate=True) for row in envelope["signatures"]]
    return kind, base64.b64decode(envelope["payload"], validate=True), signatures


def _signed(signer: PublicKey, data: bytes, signature: bytes) -> bool:
    try:
        signer.verify(data, signature)
    except SignatureRefused:
        return False
    return True


def _public(key: PublicKey) -> ec.EllipticCurvePublicKey:
    loaded = serialization.load_pem_public_key(key.pem)
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise KeyRefused("this is not an elliptic-curve key; make one with this project's tools")
    return loaded


def _public_pem(key: object) -> bytes:
    if not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        raise KeyRefused("this is not a public key on P-256; make one with this project's tools")
    return key.public_bytes(serialization.Encoding.PEM, _SPKI)


def _read(path: Path, *, private: bool = False) -> bytes:
    """The content of a key file; a private one is refused when anyone but its owner may read it."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KeyRefused(f"no key can be read at {path}; name the file that holds it") from error
    try:
        about = os.fstat(file)
        if private and stat.S_IMODE(about.st_mode) & 0o077:
            raise KeyRefused(f"{path.name} may be read by others, so it may be known to them; make a new key, chmod 600")
        if not (stat.S_ISREG(about.st_mode) and about.st_size <= _LARGEST_KEY_FILE):
            raise KeyRefused(f"{path.name} is not a key file; name the PEM file that holds the key")
        return os.read(file, _LARGEST_KEY_FILE)
    finally:
        os.close(file)


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except FileExistsError as error:
        raise KeyRefused(f"{path} is there already; a key is never replaced, move the old one away first") from error
    except OSError as error:
        raise KeyRefused(f"no key can be written at {path}; check its folder and permissions") from error
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)
