"""Keys of tokens: public keys, rotation, and attacks on the choice of the key (RFC 8725)."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from dream.errors import SettingsError, TokenKeysUnavailable, TokenRejected
from dream.gateway.auth import Identity, decode
from dream.gateway.keys import Keys, UnknownKey
from dream.settings import Settings
from tests.certificates import Certificates
from tests.issuer import Issuer, jwk

RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
SECRET = "s" * 32
PRIVATE = {"RS256": RSA_KEY, "ES256": EC_KEY, "EdDSA": ED_KEY}


def pem(private_key: Any, kid: str = "") -> str:
    public = private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return (f"kid: {kid}\n" if kid else "") + public.decode()


def signed(key: Any, algorithm: str, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    return jwt.encode({"user_id": 5, "exp": time.time() + 60, **claims}, key, algorithm, headers)


def read(token: str, **values: Any) -> Identity:
    settings = Settings(**values)
    return decode(token, settings, Keys(settings))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Three public keys with names."""
    path = tmp_path / "keys.pem"
    path.write_text("".join(pem(key, name) for name, key in PRIVATE.items()))
    return path


@pytest.mark.parametrize("algorithm", PRIVATE)
def test_public_keys_of_a_file_check_tokens(key_file: Path, algorithm: str) -> None:
    """RS256, ES256 and EdDSA need no further setting; `kid` chooses the key, and a token without one may fit any."""
    for headers in ({"kid": algorithm}, None):
        assert read(signed(PRIVATE[algorithm], algorithm, headers), jwt_key_file=str(key_file)).user_id == 5
    with pytest.raises(UnknownKey):
        read(signed(PRIVATE[algorithm], algorithm, {"kid": "other"}), jwt_key_file=str(key_file))


def test_a_certificate_is_a_public_key(tmp_path: Path) -> None:
    """Some issuers offer their key as a certificate."""
    made = Certificates.made_in(tmp_path)
    private = serialization.load_pem_private_key(made.server_key.read_bytes(), None)
    assert read(signed(private, "ES256"), jwt_key_file=str(made.server)).user_id == 5


def test_a_public_key_is_never_a_secret(key_file: Path) -> None:
    """A token that is signed by HS256 with the text of the public key is refused, also beside a real secret."""
    header = jwt.utils.base64url_encode(b'{"alg":"HS256","typ":"JWT","kid":"RS256"}')
    body = jwt.utils.base64url_encode(json.dumps({"user_id": 5, "exp": time.time() + 60}).encode())
    for text in (pem(RSA_KEY).encode(), key_file.read_bytes()):
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(header + b"." + body, text)
        forged = b".".join((header, body, jwt.utils.base64url_encode(mac))).decode()
        for values in ({}, {"jwt_secret": SECRET}, {"jwt_secret": SECRET, "jwt_algorithms": ("HS256", "RS256")}):
            with pytest.raises(TokenRejected):
                read(forged, jwt_key_file=str(key_file), **values)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"crit": ["exp"], "exp": 1}, "malformed"),
        ({"typ": "logout+jwt"}, "typ"),
        ({"typ": "at+jwt"}, ""),
        ({"typ": "application/AT+JWT"}, ""),
        ({"typ": None}, ""),
        ({"kid": 5}, "malformed"),
        ({"jku": "https://evil.example/keys"}, "signature"),
        ({"jwk": jwk(OTHER_RSA_KEY, "mine")}, "signature"),
        ({"x5u": "https://evil.example/key"}, "signature"),
    ],
    ids=["crit", "type", "access token", "long type", "no type", "kid", "jku", "jwk", "x5u"],
)
def test_headers_of_a_token_choose_nothing_but_a_known_key(
    key_file: Path, headers: dict[str, Any], reason: str
) -> None:
    """Keys and addresses in a token are ignored, and unknown rules and types are refused."""
    signer = OTHER_RSA_KEY if reason == "signature" else RSA_KEY
    own = _encoded(headers) if headers.get("kid") == 5 or "crit" in headers else signed(signer, "RS256", headers)
    if not reason:
        assert read(own, jwt_key_file=str(key_file)).user_id == 5
        return
    with pytest.raises(TokenRejected, match=reason):
        read(own, jwt_key_file=str(key_file))


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "shop", "iss": "https://id.example"}, "audience"),
        ({"aud": "photos", "iss": "https://evil.example"}, "issuer"),
        ({"iss": "https://id.example"}, "no aud"),
        ({"aud": "photos"}, "no iss"),
        ({"aud": ["shop", "photos"], "iss": "https://id.example"}, ""),
        ({"aud": "photos", "iss": "https://id.example", "typ": "ID"}, "ID token"),
        ({"aud": "photos", "iss": "https://id.example", "typ": "Refresh"}, "refresh token"),
        ({"aud": {"photos": 1}, "iss": "https://id.example"}, "audience"),
        ({"aud": "photos", "iss": ["https://id.example"]}, "issuer"),
    ],
)
def test_audience_and_issuer_are_checked_if_set(claims: dict[str, Any], reason: str) -> None:
    settings = {"jwt_secret": SECRET, "jwt_audience": "photos,albums", "jwt_issuer": "https://id.example"}
    try:
        own = signed(SECRET, "HS256", **claims)
    except TypeError:  # the library writes no such claim
        own = _encoded({}, SECRET, "HS256", **claims)
    if not reason:
        assert read(own, **settings).user_id == 5
        return
    with pytest.raises(TokenRejected, match=reason):
        read(own, **settings)


def test_the_claim_of_the_user_has_the_name_that_the_site_gives() -> None:
    assert read(signed(SECRET, "HS256", sub="7"), jwt_secret=SECRET, jwt_user_claim="sub").user_id == 7
    with pytest.raises(TokenRejected, match="no sub claim"):
        read(signed(SECRET, "HS256"), jwt_secret=SECRET, jwt_user_claim="sub")


def test_the_secret_before_is_accepted_while_it_is_named() -> None:
    """A rotation refuses nobody: the new secret signs, both check."""
    new, old = signed(SECRET, "HS256"), signed("o" * 32, "HS256")
    both = {"jwt_secret": SECRET, "jwt_old_secret": "o" * 32}
    assert read(new, **both)
    assert read(old, **both)
    with pytest.raises(TokenRejected, match="signature"):
        read(old, jwt_secret=SECRET)


def test_secret_and_public_keys_serve_side_by_side(key_file: Path) -> None:
    """A site may move from a secret to public keys without a log-out of everybody."""
    both = {"jwt_secret": SECRET, "jwt_key_file": str(key_file)}
    assert read(signed(SECRET, "HS256"), **both)
    assert read(signed(ED_KEY, "EdDSA", {"kid": "EdDSA"}), **both)


@pytest.mark.parametrize(
    ("text", "values", "reason"),
    [
        ("", {}, "no public key"),
        (pem(RSA_KEY), {"jwt_algorithms": ("ES256",)}, "fits these algorithms"),
        (pem(rsa.generate_private_key(65537, 1024)), {}, "1024 bits"),  # noqa: S505 (it is refused)
        (pem(RSA_KEY).replace("PUBLIC", "PRIVATE"), {}, "private key"),
        (pem(RSA_KEY)[:200] + "\n-----END PUBLIC KEY-----", {}, "cannot be read"),
        ("-----BEGIN PUBLIC KEY-----\nMAswBQYDKgMEAwIAAA==\n-----END PUBLIC KEY-----", {}, "cannot be read"),
    ],
    ids=["empty", "algorithm", "short", "private", "cut off", "unknown kind"],
)
def test_a_file_without_a_usable_key_is_one_clear_error(
    tmp_path: Path, text: str, values: dict[str, Any], reason: str
) -> None:
    (tmp_path / "keys.pem").write_text(text)
    with pytest.raises(SettingsError, match=reason):
        Keys(Settings(jwt_key_file=str(tmp_path / "keys.pem"), **values))


@pytest.mark.parametrize("value", ["http://id.example/keys", "ftp://id.example/keys", "https://"])
def test_the_address_of_keys_is_encrypted(value: str) -> None:
    with pytest.raises(ValueError, match="https://"):
        Settings(jwt_jwks=value)


# --- the issuer's set


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with closing(Issuer([jwk(RSA_KEY, "first", use="sig", alg="RS256")])) as own:
        yield own


def test_a_new_key_of_the_issuer_is_read_when_a_token_names_it_and_at_most_once_a_minute(issuer: Issuer) -> None:
    settings = Settings(jwt_jwks=issuer.url)
    keys = Keys(settings)
    assert decode(signed(RSA_KEY, "RS256", {"kid": "first"}), settings, keys).user_id == 5
    new = signed(ED_KEY, "EdDSA", {"kid": "second"})
    issuer.keys = [jwk(ED_KEY, "second"), {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}, {"kty": "odd"}, "nonsense"]
    with pytest.raises(UnknownKey):
        decode(new, settings, keys)
    assert keys.refresh(is_unknown=True)
    assert decode(new, settings, keys).user_id == 5
    assert [key.kid for key in keys] == ["second"]
    asked = issuer.asked
    assert not any(keys.refresh(is_unknown=True) for _ in range(100))
    assert issuer.asked == asked


def test_keys_are_kept_while_the_issuer_does_not_answer(issuer: Issuer) -> None:
    settings = Settings(jwt_jwks=issuer.url)
    keys = Keys(settings)
    issuer.keys = None
    keys.refresh()
    assert decode(signed(RSA_KEY, "RS256", {"kid": "first"}), settings, keys).user_id == 5
    issuer.keys = []
    keys.refresh()
    assert [key.kid for key in keys] == ["first"]


@pytest.mark.slow
def test_an_answer_without_end_is_given_up(issuer: Issuer) -> None:
    """Neither a large one nor a slow one costs more than its share of memory and time; the keys are kept."""
    settings = Settings(jwt_jwks=issuer.url)
    keys = Keys(settings)
    issuer.keys = [jwk(ED_KEY, "second"), "x" * (1 << 20)]
    keys.refresh()
    assert [key.kid for key in keys] == ["first"]
    issuer.keys, issuer.is_endless = [jwk(ED_KEY, "second")], True
    began = time.monotonic()
    keys.refresh()
    assert time.monotonic() - began < 15
    assert [key.kid for key in keys] == ["first"]


def test_an_issuer_that_never_answered_makes_tokens_wait_and_is_asked_again(issuer: Issuer) -> None:
    """The gateway starts without the issuer; a token is not refused for good then."""
    given, issuer.keys = issuer.keys, None
    settings = Settings(jwt_jwks=issuer.url)
    keys = Keys(settings)
    own = signed(RSA_KEY, "RS256", {"kid": "first"})
    with pytest.raises(TokenKeysUnavailable):
        decode(own, settings, keys)
    issuer.keys = given
    assert keys.refresh(is_unknown=True)
    assert decode(own, settings, keys).user_id == 5


def test_the_set_may_be_a_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [jwk(EC_KEY, "a", use="sig"), jwk(RSA_KEY, "b", use="enc")]}))
    assert read(signed(EC_KEY, "ES256", {"kid": "a"}), jwt_jwks=str(path)).user_id == 5
    with pytest.raises(UnknownKey):
        read(signed(RSA_KEY, "RS256", {"kid": "b"}), jwt_jwks=str(path))
    path.write_text("[]")
    with pytest.raises(SettingsError, match="list named keys"):
        read("", jwt_jwks=str(path))


def _encoded(headers: dict[str, Any], key: Any = RSA_KEY, algorithm: str = "RS256", **claims: Any) -> str:
    """A token that the library itself would not write."""
    said = {"user_id": 5, "exp": int(time.time()) + 60, **claims}
    head = {"typ": "JWT", "alg": algorithm, **headers}
    parts = b".".join(jwt.utils.base64url_encode(json.dumps(each).encode()) for each in (head, said))
    signer = jwt.algorithms.get_default_algorithms()[algorithm]
    signature = signer.sign(parts, signer.prepare_key(key))
    return (parts + b"." + jwt.utils.base64url_encode(signature)).decode()
