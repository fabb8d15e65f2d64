"""A Django site with simplejwt's blacklist, in a process of its own, on the database that a test gives it.

python -m tests.simplejwt_site DATABASE_URL SECRET issue|flush
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

from sqlalchemy import make_url

__all__ = ["site"]

#: Each kind of expired token is issued so many times.
EXPIRED = 30


def site(database_url: str, secret: str, command: str) -> dict[str, Any]:
    """Run a command of the site: `issue` migrates and makes tokens, `flush` runs simplejwt's `flushexpiredtokens`."""
    arguments = [sys.executable, "-m", "tests.simplejwt_site", database_url, secret, command]
    run = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    said: dict[str, Any] = json.loads(run.stdout)
    return said


def _set_up(database_url: str, secret: str) -> None:
    import django
    from django.conf import settings

    url = make_url(database_url)
    is_sqlite = url.get_backend_name() == "sqlite"
    settings.configure(
        SECRET_KEY=secret,
        USE_TZ=True,
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "rest_framework",
            "rest_framework_simplejwt",
            "rest_framework_simplejwt.token_blacklist",
        ],
        DATABASES={
            "default": {
                "ENGINE": f"django.db.backends.{'sqlite3' if is_sqlite else 'postgresql'}",
                "NAME": url.database,
                "USER": url.username or "",
                "PASSWORD": url.password or "",
                "HOST": url.host or str(url.query.get("host", "")),
                "PORT": str(url.port or ""),
            }
        },
    )
    django.setup()


def _issue() -> dict[str, Any]:
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from rest_framework_simplejwt.tokens import AccessToken, BlacklistMixin, RefreshToken, SlidingToken

    class RevocableAccess(BlacklistMixin, AccessToken):
        """An access token that can be blacklisted, as simplejwt's documentation makes one."""

    class OldRefresh(RefreshToken):
        lifetime = timedelta(hours=-1)

    call_command("migrate", verbosity=0)
    user = User.objects.create_user("olga", id=11)
    for number in range(2 * EXPIRED):
        old = OldRefresh.for_user(user)
        if number % 2:
            old.blacklist()
    refresh, revoked = RefreshToken.for_user(user), RevocableAccess.for_user(user)
    revoked.blacklist()
    sliding = SlidingToken.for_user(user)
    sliding.blacklist()
    RefreshToken.for_user(user).blacklist()
    return {
        "access": str(refresh.access_token),
        "refresh": str(refresh),
        "revoked": str(revoked),
        "revoked sliding": str(sliding),
        "to log out": str(refresh.access_token),
        "user_id": refresh.access_token["user_id"],
    }


def _flush() -> dict[str, Any]:
    """The numbers of rows before and after `flushexpiredtokens`, and the jtis that simplejwt holds for blacklisted."""
    from django.core.management import call_command
    from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

    before = [OutstandingToken.objects.count(), BlacklistedToken.objects.count()]
    blacklisted = list(BlacklistedToken.objects.values_list("token__jti", flat=True))
    call_command("flushexpiredtokens")
    after = [OutstandingToken.objects.count(), BlacklistedToken.objects.count()]
    return {"before": before, "after": after, "blacklisted": blacklisted}


if __name__ == "__main__":
    _set_up(sys.argv[1], sys.argv[2])
    sys.stdout.write(json.dumps({"issue": _issue, "flush": _flush}[sys.argv[3]]()))
