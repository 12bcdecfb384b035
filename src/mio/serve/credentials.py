"""Content Credentials (C2PA): a manifest in the file, signed with a key of this installation.

The key is ours alone: readers find the manifest valid, and its signer unknown to them. A changed byte makes it invalid.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mio.types import MioError

KEY, CHAIN = "key.pem", "chain.pem"
YEARS = 10


def folder() -> Path:
    """Where the key of this user lies."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "mio" / "c2pa"


@dataclass(frozen=True)
class Credentials:
    """`chain`: certificates in PEM, the signer's first; `key`: its private key in PEM."""

    chain: bytes
    key: bytes

    @staticmethod
    def at(place: Path) -> Credentials:
        """Those of a folder, made on first use and readable by their owner only."""
        try:
            if not (place / CHAIN).is_file():
                _keep(place, created())
            return Credentials((place / CHAIN).read_bytes(), (place / KEY).read_bytes())
        except OSError as error:
            what = "The signing key can neither be read nor made."
            raise MioError(
                what, at=str(place), fix="Make the folder writable, or serve with --provenance off."
            ) from error

    def sign(self, data: bytes, mime: str, model: str) -> bytes:
        """The file with a manifest that says which model made it."""
        source, signed = io.BytesIO(data), io.BytesIO()
        info = c2pa.C2paSignerInfo(b"es256", self.chain, self.key, None)
        with (
            c2pa.Context.from_dict(_SETTINGS) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder(_manifest(model), context) as builder,
        ):
            builder.sign(signer, mime, source, signed)
        return signed.getvalue()


_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}}
_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def _manifest(model: str) -> dict[str, Any]:
    action = {"action": "c2pa.created", "digitalSourceType": _SOURCE, "softwareAgent": {"name": f"mio {model}"}}
    actions = {"label": "c2pa.actions.v2", "data": {"actions": [action]}}
    return {"claim_generator_info": [{"name": "mio"}], "title": "generated", "assertions": [actions]}


@dataclass(frozen=True)
class Found:
    """What a file's manifest says. `state`: "trusted", "valid", "invalid", or "not_present"."""

    state: str
    issuer: str | None = None
    made: str | None = None
    agent: str | None = None  # what made it
    generated: bool = False  # by a model, if the manifest is to be believed


def look(data: bytes, mime: str) -> Found:
    """A broken manifest counts as invalid, a file without one, or of no known format, as having none."""
    try:
        reader = c2pa.Reader.try_create(mime, io.BytesIO(data))
    except c2pa.C2paError as error:
        return Found("not_present" if "NotSupported" in type(error).__name__ else "invalid")
    if reader is None:
        return Found("not_present")
    with reader:
        state, told = (reader.get_validation_state() or "invalid").lower(), json.loads(reader.json())
    active = told["manifests"].get(told.get("active_manifest"), {})
    signature = active.get("signature_info", {})
    actions = [a for x in active.get("assertions", []) for a in x.get("data", {}).get("actions", [])]
    ours: dict[str, Any] = next((a for a in actions if a.get("digitalSourceType") == _SOURCE), {})
    agent = ours.get("softwareAgent", {}).get("name")
    return Found(state, signature.get("issuer"), signature.get("time"), agent, bool(ours))


# ------------------------------------------------------------------------------------------------------------- keys


def created() -> Credentials:
    """A key, its certificate, and the certificate of an authority that signs this one only and is then forgotten."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root = _certificate("mio local authority", authority, "mio local authority", authority, authority=True)
    leaf = _certificate("mio", own, "mio local authority", authority, authority=False)
    chain = b"".join(c.public_bytes(serialization.Encoding.PEM) for c in (leaf, root))
    plain = serialization.NoEncryption()
    pem = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return Credentials(chain, pem)


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, signer: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    now, public = datetime.now(UTC), key.public_key()
    builder = x509.CertificateBuilder(_name(issuer), _name(name), public, x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=365 * YEARS))
    for extension, critical in _extensions(public, signer.public_key(), authority):
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def _extensions(
    public: ec.EllipticCurvePublicKey, issuer: ec.EllipticCurvePublicKey, authority: bool
) -> Sequence[tuple[x509.ExtensionType, bool]]:
    usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
    common: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=authority, path_length=None), True),
        (usage, True),
        (x509.SubjectKeyIdentifier.from_public_key(public), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), False),
    ]
    return common if authority else [*common, (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False)]


def _name(common: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, common), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mio")]
    )


def _keep(place: Path, credentials: Credentials) -> None:
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, data in (
        (KEY, credentials.key),
        (CHAIN, credentials.chain),
    ):  # the chain last: it says that both are there
        descriptor = os.open(place / f"{name}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        (place / f"{name}.tmp").replace(place / name)
