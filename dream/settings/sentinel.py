"""The URL of a Redis behind sentinels, which know where the master of a service is now.

    sentinel://user:password@host1:26379,host2:26379/service/0?sentinel_password=…
               └ of Redis ─┘ └ the sentinels ──────┘ └ name ┘└ database

`sentinels://` speaks TLS with Redis and with the sentinels. Options of redis-py follow the `?`; those that begin with
`sentinel_` are for the sentinels alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

__all__ = ["SentinelUrl", "is_sentinel"]

_SCHEMES = {"sentinel": "redis", "sentinels": "rediss"}
_DEFAULT_PORT = 26379
_OF_SENTINELS = "sentinel_"
#: Options about certificates, which the sentinels share unless they have their own.
_TLS = "ssl_"
_FORM = "sentinel://HOST:26379,HOST:26379/SERVICE/0"


def is_sentinel(url: str) -> bool:
    """Whether a URL names sentinels."""
    return url.partition("://")[0] in _SCHEMES


@dataclass(frozen=True)
class SentinelUrl:
    """The parts of such a URL.

    Parameters:
      hosts: the addresses of the sentinels, as `host:port`.
      service: the master's name.
      master: a URL of redis-py for the master, with `localhost` in place of its host.
      sentinels: a URL of redis-py for each sentinel, in the order of `hosts`.
    """

    hosts: tuple[str, ...]
    service: str
    master: str
    sentinels: tuple[str, ...]

    @classmethod
    def parse(cls, url: str) -> SentinelUrl:
        """Read a URL.

        Raises:
          ValueError: a part is missing or wrong. The text says which, and quotes no password.
        """
        parts = urlsplit(url)
        scheme = _SCHEMES[parts.scheme]
        if "@" in parts.path:
            raise ValueError("percent-encode a password with one of /?#@, as in p%40ss%2F1 for p@ss/1")
        user, _, named = parts.netloc.rpartition("@")
        service, _, database = parts.path.lstrip("/").partition("/")
        if not service or (service.isdecimal() and not database):
            raise ValueError(f"it must name the service after the sentinels, as in {_FORM}")
        if not (database or "0").isdecimal():
            raise ValueError(f"the database after the service must be a number, as in {_FORM}")
        hosts = tuple(_address(each) for each in named.split(","))
        options = parse_qsl(parts.query, keep_blank_values=True)
        shared = [(name, value) for name, value in options if not name.startswith(_OF_SENTINELS)]
        own = dict(each for each in shared if each[0].startswith(_TLS))
        own |= {name.removeprefix(_OF_SENTINELS): value for name, value in options if name.startswith(_OF_SENTINELS)}
        return cls(
            hosts,
            unquote(service),
            f"{scheme}://{user}{'@' if user else ''}localhost/{database or 0}?{urlencode(shared)}",
            tuple(f"{scheme}://{host}?{urlencode(own)}" for host in hosts),
        )


def _address(text: str) -> str:
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.path or parts.query:
        raise ValueError(f"each sentinel must be HOST or HOST:PORT, as in {_FORM}")
    return f"[{host}]:{port or _DEFAULT_PORT}" if ":" in host else f"{host}:{port or _DEFAULT_PORT}"
