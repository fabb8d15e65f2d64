"""Tokens of Django simplejwt: the gateway reads and writes its blacklist, and the clean-up leaves nothing to flush."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jwt
import pytest
from sqlalchemy import text

from dream.celery.tasks.token_tasks import cleanup_expired_tokens
from dream.db import Database, migrate, simplejwt
from dream.db.batches import in_batches
from dream.errors import BlacklistMissing
from dream.settings import Settings
from tests.commands import dream
from tests.gateway import DREAM, SECRET, Gateway, auth
from tests.simplejwt_site import EXPIRED, site
from tests.this_process import configured

pytestmark = pytest.mark.slow

Start = Callable[..., Gateway]
Environment = dict[str, str]


@pytest.fixture(params=["sqlite", "postgresql"])
def in_simplejwt(request: pytest.FixtureRequest, environment: Environment) -> Iterator[Environment]:
    """The environment with simplejwt's blacklist, without its tables so far; this process has it too."""
    environment["DREAM_TOKEN_BLACKLIST"] = "simplejwt"
    if request.param == "postgresql":
        environment["DREAM_DATABASE_URL"] = request.getfixturevalue("postgres_url")
    migrate.upgrade(environment["DREAM_DATABASE_URL"])
    with configured(environment):
        yield environment


def status_of(gateway: Gateway, its_token: str) -> int:
    return gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(its_token)).status_code


def jti_of(its_token: str) -> str:
    return str(jwt.decode(its_token, options={"verify_signature": False})["jti"])


def test_what_simplejwt_issues_is_accepted_what_it_blacklists_is_refused_and_what_has_expired_goes(
    in_simplejwt: Environment, start: Start
) -> None:
    url = in_simplejwt["DREAM_DATABASE_URL"]
    issued = site(url, SECRET, "issue")
    assert issued["user_id"] == "11"  # a text
    with start() as gateway:
        assert status_of(gateway, issued["access"]) == 200
        for refused in ("refresh", "revoked", "revoked sliding"):
            assert status_of(gateway, issued[refused]) == 401, refused
        assert status_of(gateway, issued["to log out"]) == 200
        assert gateway.http.post("/api/auth/logout", headers=auth(issued["to log out"])).is_success
        assert status_of(gateway, issued["to log out"]) == 401
        assert status_of(gateway, issued["access"]) == 200
    assert cleanup_expired_tokens() == 2 * EXPIRED
    assert cleanup_expired_tokens() == 0
    found = site(url, SECRET, "flush")
    assert found["before"] == found["after"] == [5, 4]
    assert jti_of(issued["to log out"]) in found["blacklisted"]
    assert jti_of(issued["revoked"]) in found["blacklisted"]


def test_missing_tables_are_one_clear_error_of_the_task(in_simplejwt: Environment, settings: Settings) -> None:
    with pytest.raises(BlacklistMissing, match="migrate `token_blacklist`"):
        cleanup_expired_tokens()


@pytest.mark.parametrize("in_simplejwt", ["sqlite"], indirect=True)
def test_missing_tables_are_one_clear_error_of_the_doctor_and_the_gateway(
    in_simplejwt: Environment, start: Start
) -> None:
    run = dream(in_simplejwt, "doctor")
    assert run.returncode == 1
    assert "✗ wrong  revoked tokens: simplejwt's tables are not in dream's database" in run.stdout
    with start() as gateway:
        its_token = jwt.encode({"user_id": "11", "exp": 4_000_000_000, "jti": "a"}, SECRET, "HS256")
        answer = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(its_token))
    assert answer.status_code == 503
    assert "tables of revoked tokens are missing" in answer.json()["error"]


def test_a_token_that_another_transaction_holds_is_left_for_the_next_run(postgres_url: str) -> None:
    site(postgres_url, SECRET, "issue")
    database = Database(Settings(database_url=postgres_url))
    with database.begin() as other:
        other.execute(text("SELECT id FROM token_blacklist_outstandingtoken ORDER BY id LIMIT 1 FOR KEY SHARE"))
        assert sum(in_batches(database, simplejwt.Expired().delete)) == 2 * EXPIRED - 1
    assert sum(in_batches(database, simplejwt.Expired().delete)) == 1
    database.dispose()
