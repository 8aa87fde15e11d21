"""Who vouches for a bundle: an Ed25519 signature over the bytes of its manifest, which has the hash of every other file.

    manifest.sig    JSON: the fingerprint of the key that signed, and the signature in base64

Keys are PEM files as `openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them. A fingerprint is the SHA-256 of a
public key's SubjectPublicKeyInfo in DER. `cryptography` signs and checks.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BadInput
from .files import read_file, write_whole
from .records import dump_json, from_json, parse_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NAME = "manifest.sig"
MAX_BYTES = 1 << 16  # of a signature's file, or a key's


@dataclass(frozen=True)
class Signature:
    """What `manifest.sig` holds: the fingerprint of the key, and the signature in base64."""

    key: str
    signature: str


def sign(folder: Path, manifest: bytes, key: str | Path) -> str:
    """Write `manifest.sig` beside a manifest of these bytes, by a private key; returns the key's fingerprint."""
    private = _private_key(Path(key))
    name = fingerprint(private.public_key())
    made = Signature(name, base64.b64encode(private.sign(manifest)).decode())
    write_whole(folder / NAME, dump_json(made).encode())
    return name


def check(folder: Path, manifest: bytes, trusted: Sequence[str | Path]) -> None:
    """Raises BadInput unless one of the `trusted` public keys signed the bytes of the folder's manifest."""
    from cryptography.exceptions import InvalidSignature

    keys = {fingerprint(key): key for key in map(_public_key, map(Path, trusted))}
    if not keys:
        raise BadInput(f"{folder}: no key is trusted, so nobody can vouch for it. Name one or more public keys.")
    path = folder / NAME
    if not os.path.lexists(path):
        raise BadInput(f"{folder}: is not signed: no {NAME}. Expected the signature of a trusted key; see `edgeeff sign`.")
    text = read_file(path, MAX_BYTES, follow=False)
    try:
        found = from_json(parse_json(text), Signature, path)
        signature = base64.b64decode(found.signature, validate=True)
    except ValueError as error:
        raise BadInput(f"{path}: is not a signature ({error}). Sign the bundle again.") from error
    if found.key not in keys:
        raise BadInput(f"{folder}: signed by the key {found.key[:80]!r}, which is not trusted. Trusted: {', '.join(keys)}.")
    try:
        keys[found.key].verify(signature, manifest)
    except InvalidSignature as error:
        raise BadInput(
            f"{folder}: was changed after {found.key} signed it: the signature does not match. Copy it again."
        ) from error


def fingerprint(key: Ed25519PublicKey) -> str:
    """`sha256:` and 64 hexadecimal digits, of the key's SubjectPublicKeyInfo."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return f"sha256:{hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()}"


def _private_key(path: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(read_file(path, MAX_BYTES), password=None)
    except TypeError as error:
        raise BadInput(f"{path}: the key has a password. Expected one without: openssl pkey -in {path} -out KEY") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{path}: is not a private key. Make one: openssl genpkey -algorithm ed25519 -out KEY") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path}: is another kind of key, expected Ed25519. Make one: openssl genpkey -algorithm ed25519 -out KEY")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    pem = read_file(path, MAX_BYTES)
    if b"PRIVATE KEY" in pem:
        raise BadInput(f"{path}: is a private key; it belongs to who signs. Give its public one: openssl pkey -in {path} -pubout")
    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"{path}: is not a public key. Expected what this writes: openssl pkey -in PRIVATE -pubout") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BadInput(f"{path}: is another kind of key, expected Ed25519: openssl genpkey -algorithm ed25519")
    return key
