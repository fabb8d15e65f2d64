"""A database that answers with an error is not called one that does not answer; its words are in the log alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from dream.db import Base
from dream.settings import Settings
from tests.gateway import DREAM, Gateway, auth, token

OWNERS = "this site's query for a dream's owner fails; the gateway's log says why"


def refused_socket(gateway: Gateway) -> tuple[int | None, str | None]:
    with gateway.socket(f"?token={token()}") as websocket:
        with pytest.raises(ConnectionClosed):
            websocket.recv(timeout=20)
        return websocket.close_code, websocket.close_reason


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owners_sql", "said"),
    [
        ("SELECT user_id, username FROM nowhere WHERE id = :dream_id", "nowhere"),
        ("SELECT nobody, username FROM dreams WHERE id = :dream_id", "nobody"),
        ("SELEC user_id FROM dreams WHERE id = :dream_id", "syntax error"),
        ("SELECT user_id FROM dreams WHERE id = :dream_id", "gives 1 of the two columns"),
    ],
    ids=["table", "column", "syntax", "one column"],
)
def test_an_owners_query_that_fails_is_called_that(start: Callable[..., Gateway], owners_sql: str, said: str) -> None:
    with start(owners_sql=owners_sql) as gateway:
        assert refused_socket(gateway) == (1013, OWNERS)
        answer = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth())
        assert (answer.status_code, answer.json()) == (503, {"error": OWNERS, "code": "database_unavailable"})
        log = gateway.log.read_text()
        assert log.count("DREAM_OWNERS_SQL") == 2
        assert said in log
        assert "Traceback" not in log


def test_an_owners_query_that_fails_on_postgresql_is_called_that(
    environment: dict[str, str], settings: Settings, postgres_url: str, tmp_path: Path
) -> None:
    changes = {
        "DREAM_DATABASE_URL": postgres_url,
        "DREAM_OWNERS_SQL": "SELECT user_id, username FROM nowhere WHERE id = :dream_id",
    }
    at_postgres = settings.model_copy(update={"database_url": postgres_url})
    with Gateway({**environment, **changes}, at_postgres, tmp_path) as gateway:
        assert refused_socket(gateway) == (1013, OWNERS)
        assert 'relation \\"nowhere\\" does not exist' in gateway.log.read_text()


def test_missing_tables_are_called_that(start: Callable[..., Gateway]) -> None:
    sentence = "the database is not set up for this release yet; nothing was changed, try again later"
    with start() as gateway:
        Base.metadata.drop_all(gateway.database.engine)
        assert refused_socket(gateway) == (1013, sentence)
        answer = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth(token(jti="a token's own")))
        assert (answer.status_code, answer.json()) == (503, {"error": sentence, "code": "database_unavailable"})
        assert "run `dream migrate`" in gateway.log.read_text()


def test_a_database_that_is_away_is_said_to_be_away(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    away = "postgresql://nobody@127.0.0.1:9/nowhere"
    sentence = "the database does not answer; nothing was changed, try again later"
    with Gateway({**environment, "DREAM_DATABASE_URL": away}, settings, tmp_path) as gateway:
        assert refused_socket(gateway) == (1013, sentence)
        answer = gateway.http.get(f"/api/dreams/{DREAM}/images", headers=auth())
        assert (answer.status_code, answer.json()) == (503, {"error": sentence, "code": "database_unavailable"})
        assert "Connection refused" in gateway.log.read_text()
