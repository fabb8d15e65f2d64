"""Turn errors of servers and their clients into plain sentences."""

from __future__ import annotations

from dream.errors import DreamError

__all__ = ["sentence_of"]

#: Words of an error, and the sentence for them; the first match counts.
_SENTENCES = (
    (("password authentication failed", "WRONGPASS", "invalid username-password", "ACCESS_REFUSED"), "wrong password"),
    (
        ("Authentication required", "NOAUTH", "no password supplied"),
        "the server asks for a password, and none is given",
    ),
    (("called without any password configured",), "a password is given, but the server has none"),
    (("NOPERM",), "this user may not run a command that dream needs"),
    (("vhost",), "the virtual host does not exist, or this user may not use it"),
    (("Could not connect to the endpoint",), "nothing answers at this address"),
    (("Connection refused", "ECONNREFUSED"), "nothing listens at this address (connection refused)"),
    (
        (
            "Name or service not known",
            "getaddrinfo",
            "could not translate host",
            "resolve host",
            "nodename nor servname",
        ),
        "the host's name is not known",
    ),
    (("No route to host", "Network is unreachable"), "the network has no route to this host"),
    (("timed out", "timeout expired", "Timeout"), "no answer in time"),
    (("SSL", "certificate"), "the encrypted connection (TLS) fails"),
    (("pg_hba.conf",), "the server does not allow such a connection (pg_hba.conf)"),
)


def sentence_of(error: BaseException) -> str:
    """One plain sentence about the error, followed by the server's own words."""
    lines = str(error).strip().splitlines() or [""]
    text = repr(error) if not lines[0] or type(error).__module__.startswith("pika") else lines[0]
    for words, sentence in _SENTENCES:
        if any(word in text for word in words):
            return f"{sentence}: {text}"
    return text if isinstance(error, DreamError) else f"{type(error).__name__}: {text}"
