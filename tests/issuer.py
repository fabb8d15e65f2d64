"""An issuer of tokens: a site that serves its public keys (JWKS)."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

__all__ = ["Issuer", "jwk"]


def jwk(private_key: Any, kid: str, **more: str) -> dict[str, Any]:
    kind = {rsa.RSAPrivateKey: RSAAlgorithm, ec.EllipticCurvePrivateKey: ECAlgorithm}
    to_jwk = next((kind[each] for each in kind if isinstance(private_key, each)), OKPAlgorithm).to_jwk
    said: dict[str, Any] = to_jwk(private_key.public_key(), as_dict=True)
    return {**said, "kid": kid, **more}


class Issuer:
    """A site that serves its set of keys.

    Parameters:
      keys: the keys; None makes it answer 503.
      is_endless: whether an answer comes in pieces, and never ends.
    """

    def __init__(self, keys: list[Any] | None) -> None:
        self.keys = keys
        self.is_endless = False
        self.asked = 0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(200 if issuer.keys is not None else 503)
                self.end_headers()
                while issuer.is_endless and self._drips():
                    threading.Event().wait(0.1)
                self.wfile.write(json.dumps({"keys": issuer.keys}).encode())

            def _drips(self) -> bool:
                with suppress(OSError):
                    return bool(self.wfile.write(b" "))
                return False

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
