"""Permission to see pictures: signed URLs, and the cookie with which a browser shows its user's own pictures.

signatures    a URL that carries its end and an HMAC, and the cookie; made and checked
"""

from __future__ import annotations

from dream.media.signatures import sign, viewable

__all__ = ["sign", "viewable"]
