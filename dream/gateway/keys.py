"""Hold the keys that check tokens, and read them again while they rotate.

    DREAM_JWT_SECRET, DREAM_JWT_OLD_SECRET   secrets for HS…, which the issuer has too
    DREAM_JWT_KEY_FILE                       public keys, certificates (PEM); `kid: name` before a block names its key
    DREAM_JWT_JWKS                           the issuer's set of public keys (RFC 7517): a file, or an https:// address

Each key has the algorithms that fit its kind, so a public key never serves as a secret (RFC 8725, 3.1 and 3.2). A token
chooses a key by `kid` and `alg` alone; addresses and keys in a token (`jku`, `x5u`, `jwk`) are ignored.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt
from jwt.algorithms import has_crypto

from dream.errors import SettingsError, TokenKeysUnavailable, TokenRejected
from dream.log import get_logger

if TYPE_CHECKING:
    from dream.settings import Settings

__all__ = ["REFRESH_S", "Key", "Keys", "UnknownKey"]

#: The age at which files and the issuer's keys are read again.
REFRESH_S = 300.0
#: Tokens with an unknown `kid` make the gateway read the keys again at most once in this time.
_UNKNOWN_S = 60.0
#: The same while no key of the issuer was ever read.
_MISSING_S = 5.0
#: The longest and the largest answer of the issuer.
_FETCH_TIMEOUT_S, _MOST_SET_BYTES = 5.0, 1 << 20
#: Keys of one source that are used; a token without `kid` is checked with each that fits.
_MOST_KEYS = 32
_LEAST_RSA_BITS = 2048
#: An HMAC key must be as long as its hash, because a shorter one can be guessed (RFC 7518, 3.2).
_HMAC_KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}
#: A block of a PEM file, after the line that names it.
_BLOCK = re.compile(rb"(?:^kid:[ \t]*(\S+)[ \t]*\r?\n\s*)?(-----BEGIN ([A-Z ]+)-----.+?-----END \3-----)", re.M | re.S)

log = get_logger(__name__)


class UnknownKey(TokenRejected):
    """No key fits the token's `kid` and `alg`."""


@dataclass(frozen=True)
class Key:
    """One key.

    Parameters:
      material: a secret, or a public key of `cryptography`.
      algorithms: the accepted algorithms that fit it.
      kid: its name; None fits every token.
      source: the setting from which it came.
    """

    material: Any
    algorithms: tuple[str, ...]
    kid: str | None
    source: str


class Keys:
    """The keys of one process. Use it in any thread.

    Parameters:
      settings: where the keys are, and which algorithms are accepted.

    Raises:
      SettingsError: there is no key, or a file has none that can be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        #: Algorithms that the operator accepts; None means the usual one of each key.
        self._accepted = settings.jwt_algorithms if "jwt_algorithms" in settings.model_fields_set else None
        self._check_algorithms()
        self._secrets = tuple(self._with_algorithms(_secrets(settings)))
        self._read: dict[str, tuple[Key, ...]] = {source: () for source, _ in _sources(settings)}
        self._asked_at = float("-inf")
        self._reading = threading.Lock()
        for source in self._read:
            _check_crypto(source)
        self.refresh(is_first=True)
        self._check_keys()

    def __iter__(self) -> Iterator[Key]:
        yield from self._secrets
        for keys in self._read.values():
            yield from keys

    @property
    def can_change(self) -> bool:
        """Whether some keys come from files or from the issuer."""
        return bool(self._read)

    def fitting(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys with which a token of this header may be checked: those of its `kid`, or else those without a name.

        Raises:
          UnknownKey: none fits.
          TokenKeysUnavailable: none fits, and the issuer's keys were never read.
        """
        keys = [key for key in self if algorithm in key.algorithms]
        if kid is not None:
            keys = [key for key in keys if key.kid == kid] or [key for key in keys if key.kid is None]
        if keys:
            return keys
        if not all(self._read.values()):
            raise TokenKeysUnavailable("the keys that check tokens were not read yet")
        if any(algorithm in key.algorithms for key in self):
            raise UnknownKey("no key has the name in the token's kid")
        raise UnknownKey("the token's algorithm is not accepted")

    def refresh(self, *, is_first: bool = False, is_unknown: bool = False) -> bool:
        """Read files and the issuer's keys again; keep those of a source that cannot be read. It blocks.

        Parameters:
          is_first: raise the error of a file.
          is_unknown: a token with an unknown key asks; do nothing if another one has asked a short time ago.

        Returns:
          Whether they were read.

        Raises:
          SettingsError: with `is_first`, a file has no usable key.
        """
        with self._reading:
            wait_s = _UNKNOWN_S if all(self._read.values()) else _MISSING_S
            if is_unknown:
                if time.monotonic() - self._asked_at < wait_s:
                    return False
                self._asked_at = time.monotonic()
            for source, read in _sources(self._settings):
                try:
                    found = tuple(self._with_algorithms(read()))
                except SettingsError as error:
                    if is_first and not _is_address(self._settings, source):
                        raise
                    log.warning("token_keys_not_read", error=str(error), kept=len(self._read[source]))
                else:
                    self._read = {**self._read, source: found}
        return True

    def missing_bytes(self) -> int:
        """The number of bytes that a secret lacks for its algorithms; 0 if each is long enough.

        A short secret is reported, not refused: existing tokens of a site must stay valid.
        """
        lacks = (_HMAC_KEY_BYTES[name] - len(key.material.encode()) for key in self._secrets for name in key.algorithms)
        return max(0, *lacks, 0)

    # --- algorithms

    def _check_algorithms(self) -> None:
        known = jwt.algorithms.get_default_algorithms()
        for name in self._settings.jwt_algorithms:
            if name not in known:
                raise SettingsError(
                    f"DREAM_JWT_ALGORITHMS={','.join(self._settings.jwt_algorithms)} is wrong: {name} is not known "
                    "(public-key algorithms need the package cryptography: pip install 'dream-pictures[jwt]')"
                )

    def _check_keys(self) -> None:
        if not self._secrets and not self._read:
            raise SettingsError(
                "DREAM_JWT_SECRET is missing: the gateway checks every token with it "
                "(or with public keys: DREAM_JWT_KEY_FILE, DREAM_JWT_JWKS)"
            )
        kinds = {isinstance(key.material, str) for key in self} | ({False} if self._read else set())
        for name in self._accepted or ():
            if (name in _HMAC_KEY_BYTES) not in kinds:
                wanted = "DREAM_JWT_SECRET" if name in _HMAC_KEY_BYTES else "DREAM_JWT_KEY_FILE or DREAM_JWT_JWKS"
                accepted = ",".join(self._settings.jwt_algorithms)
                raise SettingsError(f"DREAM_JWT_ALGORITHMS={accepted} is wrong: {name} has no key; set {wanted}")

    def _with_algorithms(self, keys: Iterable[Key]) -> Iterator[Key]:
        """The keys with the algorithms that are accepted.

        Raises:
          SettingsError: none of them may be used.
        """
        source = ""
        found = False
        for key in keys:
            source = key.source
            # Without a setting the first one counts: the usual one of this kind of key.
            wanted = key.algorithms[:1] if self._accepted is None else self._accepted
            if chosen := tuple(name for name in key.algorithms if name in wanted):
                found = True
                yield replace(key, algorithms=chosen)
        if source and not found:
            accepted = ",".join(self._settings.jwt_algorithms)
            raise SettingsError(f"DREAM_JWT_ALGORITHMS={accepted} is wrong: no key of {source} fits these algorithms")


# --- where keys are


def _secrets(settings: Settings) -> Iterator[Key]:
    """The secrets. `DREAM_JWT_SECRET` may be a public key too, as in older releases."""
    for name, secret in (("JWT_SECRET", settings.jwt_secret), ("JWT_OLD_SECRET", settings.jwt_old_secret)):
        if secret is None:
            continue
        text, source = secret.get_secret_value(), f"DREAM_{name}"
        if "-----BEGIN" in text:
            yield from _keys_of_pem(text.encode(), source)
        else:
            yield Key(text, tuple(_HMAC_KEY_BYTES), None, source)


def _sources(settings: Settings) -> Iterator[tuple[str, Callable[[], Iterable[Key]]]]:
    """The settings whose keys are read again, and how."""
    if settings.jwt_key_file is not None:
        yield "DREAM_JWT_KEY_FILE", partial(_keys_in_file, settings.jwt_key_file)
    if settings.jwt_jwks is not None:
        yield "DREAM_JWT_JWKS", partial(_keys_of_issuer, settings.jwt_jwks)


def _is_address(settings: Settings, source: str) -> bool:
    return source == "DREAM_JWT_JWKS" and "://" in (settings.jwt_jwks or "")


def _keys_in_file(path: str) -> Iterator[Key]:
    source = "DREAM_JWT_KEY_FILE"
    yield from _keys_of_pem(_bytes_of(path, source), source)


def _keys_of_issuer(place: str) -> Iterator[Key]:
    yield from _keys_of_set(_set_at(place), "DREAM_JWT_JWKS")


def _bytes_of(path: str, source: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{source}={path} cannot be read: {error.strerror or error}") from None


def _set_at(place: str) -> Any:
    """The set of keys as JSON. An address is asked without following redirects."""
    source = f"DREAM_JWT_JWKS={place}"
    try:
        return json.loads(_fetched(place) if "://" in place else _bytes_of(place, "DREAM_JWT_JWKS"))
    except (OSError, http.client.HTTPException) as error:
        raise SettingsError(f"{source} does not answer with keys: {error}") from None
    except (RecursionError, ValueError) as error:
        raise SettingsError(f"{source} is no set of keys in JSON: {error}") from None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Refuse, so that the redirect is an error."""


def _fetched(address: str) -> bytes:
    """The answer of an address.

    Raises:
      OSError, HTTPException: there is none, or it takes too long or is too large.
    """
    body, until = b"", time.monotonic() + _FETCH_TIMEOUT_S
    try:
        answer = urllib.request.build_opener(_NoRedirects).open(address, timeout=_FETCH_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise
    with answer:
        while part := answer.read1(_MOST_SET_BYTES):
            body += part
            if len(body) > _MOST_SET_BYTES:
                raise OSError(f"the answer has more than {_MOST_SET_BYTES} bytes")
            if time.monotonic() > until:
                raise TimeoutError(f"the answer takes more than {_FETCH_TIMEOUT_S:g} s")
    return body


def _keys_of_pem(text: bytes, source: str) -> Iterator[Key]:
    """The public keys in a PEM file.

    Raises:
      SettingsError: it has none, a private one, or one that cannot be used.
    """
    _check_crypto(source)
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    blocks = list(_BLOCK.finditer(text))
    if not blocks:
        raise SettingsError(f"{source} has no public key in PEM, which begins with -----BEGIN PUBLIC KEY-----")
    for block in blocks[:_MOST_KEYS]:
        kid, pem, kind = block.groups()
        if b"PRIVATE" in kind:
            raise SettingsError(f"{source} has a private key: give the gateway the public key alone")
        try:
            is_certificate = b"CERTIFICATE" in kind
            material = x509.load_pem_x509_certificate(pem).public_key() if is_certificate else load_pem_public_key(pem)
        except (UnsupportedAlgorithm, ValueError) as error:
            raise SettingsError(f"{source} has a key that cannot be read: {error}") from None
        yield Key(material, _algorithms_of(material, source), kid.decode("utf-8", "replace") if kid else None, source)


def _keys_of_set(said: Any, source: str) -> Iterator[Key]:
    """The public keys for signatures in a set; keys of other kinds are left out.

    Raises:
      SettingsError: none is left.
    """
    each = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(each, list):
        raise SettingsError(f"{source} is no set of keys: it needs a list named keys")
    found = [key for key in (_key_of(item, source) for item in each[:_MOST_KEYS]) if key is not None]
    if not found:
        raise SettingsError(f"{source} has no public key for signatures that dream can use")
    yield from found


def _key_of(said: Any, source: str) -> Key | None:
    """The key in one item of a set; None if it is no public key for signatures."""
    if not isinstance(said, Mapping) or said.get("kty") == "oct" or said.get("use", "sig") != "sig":
        return None
    if "d" in said or not isinstance(said.get("kid", ""), str):
        return None
    try:
        material = jwt.PyJWK(dict(said)).key
        algorithms = _algorithms_of(material, source)
    except (jwt.PyJWTError, SettingsError, TypeError, ValueError) as error:
        log.warning("token_key_left_out", source=source, error=str(error))
        return None
    if "alg" in said:
        algorithms = tuple(name for name in algorithms if name == said["alg"])
    return Key(material, algorithms, said.get("kid"), source)


def _check_crypto(source: str) -> None:
    if not has_crypto:
        raise SettingsError(f"{source} needs the package cryptography: pip install 'dream-pictures[jwt]'")


def _algorithms_of(material: Any, source: str) -> tuple[str, ...]:
    """The algorithms that fit a public key, the usual one first.

    Raises:
      SettingsError: the key is of another kind, or too short.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

    if isinstance(material, rsa.RSAPublicKey):
        if material.key_size < _LEAST_RSA_BITS:
            raise SettingsError(
                f"{source} has an RSA key of {material.key_size} bits; at least {_LEAST_RSA_BITS} are needed"
            )
        return _RSA
    if isinstance(material, ec.EllipticCurvePublicKey) and material.curve.name in _CURVES:
        return (_CURVES[material.curve.name],)
    if isinstance(material, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return ("EdDSA",)
    raise SettingsError(f"{source} has a key of a kind that signs no tokens: RSA, EC and Ed25519 keys do")
