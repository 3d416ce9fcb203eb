"""Only what the named key signed is believed, and a private key is on disk for its owner alone."""

from __future__ import annotations

import base64
import copy
import hashlib
import pickle
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import KeyRefused, SignatureRefused
from privacy.signing import PublicKey, SigningKey, opened, pae, sealed

KEY, OTHER = SigningKey.generate(), SigningKey.generate()
KIND = "application/vnd.test+json"
PASSPHRASE = b"six random words are good"


@given(st.binary(max_size=200))
def test_what_was_signed_comes_back_and_nothing_else(payload: bytes) -> None:
    envelope = sealed(KIND, payload, [KEY])
    assert opened(envelope, KIND, [KEY.public]) == payload
    with pytest.raises(SignatureRefused, match="did not sign this"):
        opened(envelope, KIND, [OTHER.public])


def test_every_named_signer_must_have_signed() -> None:
    both = sealed(KIND, b"x", [KEY, OTHER])
    assert opened(both, KIND, [OTHER.public, KEY.public]) == b"x"
    one = sealed(KIND, b"x", [KEY])
    with pytest.raises(SignatureRefused, match=OTHER.public.fingerprint[:16]):
        opened(one, KIND, [KEY.public, OTHER.public])
    with pytest.raises(SignatureRefused, match="nobody was named"):
        opened(both, KIND, [])


def test_a_payload_of_another_type_is_refused_even_if_signed() -> None:
    envelope = sealed(KIND, b"x", [KEY])
    with pytest.raises(SignatureRefused, match="made for something else"):
        opened(envelope, "application/other", [KEY.public])
    relabelled = {**envelope, "payloadType": "application/other"}
    with pytest.raises(SignatureRefused, match="did not sign"):
        opened(relabelled, "application/other", [KEY.public])


def test_a_key_id_decides_nothing() -> None:
    envelope = sealed(KIND, b"x", [OTHER])
    forged = {**envelope, "signatures": [{**envelope["signatures"][0], "keyid": KEY.public.fingerprint}]}
    with pytest.raises(SignatureRefused):
        opened(forged, KIND, [KEY.public])


@pytest.mark.parametrize(
    "broken",
    [None, [], "text", {}, {"payloadType": KIND}, {"payloadType": 3, "payload": "", "signatures": []},
     {"payloadType": KIND, "payload": "%%", "signatures": []}, {"payloadType": KIND, "payload": "", "signatures": [{}]},
     {"payloadType": KIND, "payload": "", "signatures": [{"sig": 7}]}, {"payloadType": KIND, "payload": "ä", "signatures": []}],
)  # fmt: skip
def test_what_is_no_envelope_is_refused_in_words(broken: object) -> None:
    with pytest.raises(SignatureRefused, match="not a DSSE envelope"):
        opened(broken, KIND, [KEY.public])


def test_the_encoding_is_the_one_of_the_specification() -> None:
    # The example of the DSSE protocol text.
    assert pae("http://example.com/HelloWorld", b"hello world") == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_openssl_agrees_that_the_signature_holds(tmp_path: Path) -> None:
    envelope = sealed(KIND, b"payload", [KEY])
    data, signature, key = (tmp_path / name for name in ("data", "signature", "key.pub"))
    data.write_bytes(pae(KIND, b"payload"))
    signature.write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    key.write_bytes(KEY.public.pem)
    words = ["openssl", "dgst", "-sha256", "-verify", key, "-signature", signature, data]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Verified OK"


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_key_comes_back_from_its_file_and_is_for_its_owner_alone(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "site.key"
    KEY.write(path, passphrase)
    assert path.stat().st_mode & 0o777 == 0o600
    assert SigningKey.load(path, passphrase).public == KEY.public == PublicKey.load(tmp_path / "site.key.pub")
    assert (b"ENCRYPTED" in path.read_bytes()) is (passphrase is not None)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "site.key"
    KEY.write(path)
    path.chmod(mode)
    with pytest.raises(KeyRefused, match="may be read by others"):
        SigningKey.load(path)


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    KEY.write(path)
    before = path.read_bytes()
    with pytest.raises(KeyRefused, match="never replaced"):
        OTHER.write(path)
    assert path.read_bytes() == before


def test_wrong_or_missing_passphrases_and_short_ones_are_told_apart(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.key", tmp_path / "b.key"
    KEY.write(path, PASSPHRASE)
    KEY.write(plain)
    with pytest.raises(KeyRefused, match="give its passphrase"):
        SigningKey.load(path)
    with pytest.raises(KeyRefused, match="passphrase is wrong"):
        SigningKey.load(path, b"not the passphrase at all")
    with pytest.raises(KeyRefused, match="leave the passphrase out"):
        SigningKey.load(plain, PASSPHRASE)
    with pytest.raises(KeyRefused, match="at least 16"):
        KEY.write(tmp_path / "c.key", b"short")
    assert not (tmp_path / "c.key").exists()


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())])
def test_a_key_of_another_kind_is_refused(tmp_path: Path, key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
    path = tmp_path / "other.key"
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(KeyRefused, match="P-256"):
        SigningKey.load(path)
    with pytest.raises(KeyRefused, match="P-256"):
        PublicKey.from_pem(key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))


def test_no_file_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    huge = tmp_path / "huge.pub"
    huge.write_bytes(b"x" * (1 << 17))
    for path in (tmp_path / "none", huge, tmp_path):
        with pytest.raises(KeyRefused):
            PublicKey.load(path)
    with pytest.raises(KeyRefused, match="no public key"):
        PublicKey.from_pem(b"-----BEGIN NONSENSE-----")


def test_a_private_key_is_neither_copied_nor_pickled() -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        pickle.dumps(KEY)
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.deepcopy(KEY)


def test_the_fingerprint_is_that_of_the_der(tmp_path: Path) -> None:
    (tmp_path / "key.pub").write_bytes(KEY.public.pem)
    words = ["openssl", "pkey", "-pubin", "-in", tmp_path / "key.pub", "-outform", "DER"]
    der = subprocess.run(words, capture_output=True, check=True).stdout
    assert KEY.public.fingerprint == hashlib.sha256(der).hexdigest()
