"""Certificates for a test consortium: a CA of its own and a server certificate. A real one brings those of its institution."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from braing3n_core.errors import UsageError

_DAYS = 90                                                   # short: this is for tests
_LOOPBACK = ("localhost", "127.0.0.1")                       # under which the SuperLink itself is reached


def make_test_certificates(folder: Path, host: str) -> None:
    """Put ca.crt, server.crt and server.key (0600) into `folder`. The CA's key is forgotten: it vouches for nobody else."""
    if any((folder / name).exists() for name in ("ca.crt", "server.crt", "server.key")):
        raise UsageError(f"{folder} holds certificates already; move them away first")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name, server_name = _name("braing3n test CA"), _name(host)
    ca = _certificate(ca_name, ca_name, ca_key, ca_key, [
        (x509.BasicConstraints(ca=True, path_length=0), True),
        (_usage(signs_certificates=True), True),
    ])  # fmt: skip
    server = _certificate(server_name, ca_name, server_key, ca_key, [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (x509.SubjectAlternativeName([_address(one) for one in dict.fromkeys((host, *_LOOPBACK))]), False),
    ])  # fmt: skip
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    _write(folder / "ca.crt", ca.public_bytes(pem), 0o644)
    _write(folder / "server.crt", server.public_bytes(pem), 0o644)
    _write(folder / "server.key", server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), 0o600)


def refuse_incomplete(folder: Path) -> None:
    """Raise UsageError unless `folder` holds all three files and nobody but their owner reads the key."""
    for name in ("ca.crt", "server.crt", "server.key"):
        if not (folder / name).is_file():
            raise UsageError(f"no {folder / name}; put your institution's there, or try with --make-test-certificates")
    if (folder / "server.key").stat().st_mode & 0o077:
        raise UsageError(f"{folder / 'server.key'} may be read by others; have a new certificate issued, chmod 600 its key")


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))        # clocks of two hospitals never agree
        .not_valid_after(now + timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates, key_cert_sign=signs_certificates, crl_sign=signs_certificates,
        content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _address(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, content: bytes, mode: int) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)
