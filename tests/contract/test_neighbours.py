"""The database may be the application's: its tables, its Alembic and its Django stand beside ours, in either order."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy.orm import Session

from dream.db import Base, Database, Dream, DreamImage, DreamTask, RevokedToken, dreams, migrate, tokens
from dream.db.clock import now
from dream.db.session import make_engine
from dream.errors import DatabaseRefused
from dream.producer import Producer
from dream.settings import Settings
from tests.conftest import created_database

pytestmark = pytest.mark.slow

OURS = {table.name for table in Base.metadata.sorted_tables} - {"dreams"} | {migrate.VERSION_TABLE}
OLD_ROWS = (
    "INSERT INTO alembic_version VALUES ('0004')",
    "INSERT INTO dream_tasks (id, name, args, state, due_at, created_at) VALUES ('t', 'x', '[]', 'queued', {at}, {at})",
    'INSERT INTO dream_images (dream_id, task_id, "index", filename, state, storage_key, created_at, updated_at)'
    " VALUES (7, 't', 0, 'a.jpg', 'pending', 'k', {at}, {at})",
    "INSERT INTO dreams (id, user_id, username) VALUES (7, 3, 'ann')",
    "INSERT INTO revoked_tokens VALUES ('expired', {at}, 3)",
    "INSERT INTO revoked_tokens VALUES ('revoked', {late}, 3)",
)
PICTURE = {"name": "a.jpg", "data": b"never looked at here"}
#: The INSERT of the gateway of the release that called the table `revoked_tokens`.
OLD_REVOKE = "INSERT INTO revoked_tokens (jti, expires_at, user_id) VALUES ('{jti}', '2090-01-01 00:00:00+00', 1)"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/shared.db"
        return
    with empty_postgres(request.getfixturevalue("postgres_server_url")) as made:
        yield made


@pytest.fixture
def postgres(postgres_server_url: str) -> Iterator[str]:
    with empty_postgres(postgres_server_url) as made:
        yield made


def empty_postgres(server_url: str) -> AbstractContextManager[str]:
    return created_database(server_url, f"dream_{uuid4().hex[:12]}")


def run_sql(url: str, *statements: str) -> list[Any]:
    """Runs them in one transaction; returns the rows of the last."""
    engine = make_engine(url)
    with engine.begin() as connection:
        results = [connection.execute(sa.text(statement)) for statement in statements]
        rows = [tuple(row) for row in results[-1]] if results[-1].returns_rows else []
    engine.dispose()
    return rows


def tables(url: str, schema: str | None = None) -> set[str]:
    engine = make_engine(url)
    inspector = sa.inspect(engine)
    names = set(inspector.get_table_names(schema)) | set(inspector.get_view_names(schema))
    engine.dispose()
    return names


def database_at(url: str, **changes: Any) -> Database:
    return Database(Settings(database_url=url, **changes))


def make_old_release(url: str) -> None:
    """The tables of the release before `dream_alembic_version`, with a row in each."""
    engine = make_engine(url)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)) as op:
        for number in ("0001_first_tables", "0002_variants", "0003_periodic", "0004_error_class"):
            importlib.import_module(f"dream.db.migrations.versions.{number}").upgrade()
        op.create_table(
            "dreams",
            sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
            sa.Column("user_id", sa.BigInteger(), nullable=False),
            sa.Column("username", sa.String(length=150), nullable=False),
            sa.Column("title", sa.String(length=255), server_default="", nullable=False),
            sa.PrimaryKeyConstraint("id", name="pk_dreams"),
        )
        op.create_table(
            "revoked_tokens",
            sa.Column("jti", sa.String(length=255), nullable=False),
            sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
            sa.Column("user_id", sa.BigInteger(), nullable=True),
            sa.PrimaryKeyConstraint("jti", name="pk_revoked_tokens"),
        )
        op.create_index("ix_revoked_tokens_expires_at", "revoked_tokens", ["expires_at"])
        op.create_table("alembic_version", sa.Column("version_num", sa.String(32), primary_key=True))
        zone = "+00" if connection.dialect.name == "postgresql" else ".000000"
        for row in OLD_ROWS:
            op.execute(row.format(at=f"'2026-01-01 00:00:00{zone}'", late=f"'2096-01-01 00:00:00{zone}'"))
    engine.dispose()


def assert_as_the_models_say(url: str) -> None:
    engine = make_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrate.VERSION_TABLE})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


# --- an older release's tables


def test_an_older_releases_tables_are_taken_over_with_their_rows(url: str) -> None:
    make_old_release(url)
    assert migrate.current(url) == "0004"
    migrate.upgrade(url)
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    assert tables(url) == OURS | {"dreams", "revoked_tokens"}
    assert_as_the_models_say(url)
    database = database_at(url)
    with database.begin() as session:
        assert session.scalars(sa.select(DreamTask.id)).all() == ["t"]
        assert session.scalars(sa.select(DreamImage.storage_key)).all() == ["k"]
        assert dreams.owner_of(session, 7) == dreams.Owner(3, "ann")
        assert tokens.is_revoked(session, "revoked")
        assert tokens.Expired().delete(session, 1000) == 1
        assert session.scalars(sa.select(RevokedToken.jti)).all() == ["revoked"]
    database.dispose()


def test_the_old_name_of_the_revoked_tokens_shows_the_same_rows(url: str) -> None:
    """A gateway of the older release, and the caller's own code, go on with it while the new release is rolled out."""
    make_old_release(url)
    migrate.upgrade(url)
    database = database_at(url)
    with database.begin() as session:
        tokens.revoke(session, "by the new", now(60), 1)
    run_sql(url, OLD_REVOKE.format(jti="by the old"))
    if url.startswith("postgresql"):
        run_sql(url, OLD_REVOKE.format(jti="by the old") + " ON CONFLICT DO NOTHING")
    with database.read() as session:
        assert tokens.is_revoked(session, "by the old")
    found = {jti for (jti,) in run_sql(url, "SELECT jti FROM revoked_tokens WHERE expires_at > '2026-06-01'")}
    assert found == {"revoked", "by the old", "by the new"}
    run_sql(url, "DELETE FROM revoked_tokens WHERE jti = 'by the old'")
    with database.read() as session:
        assert not tokens.is_revoked(session, "by the old")
    # Once nobody uses it any more it may go.
    run_sql(url, "DROP VIEW revoked_tokens")
    migrate.upgrade(url)
    with database.begin() as session:
        tokens.revoke(session, "later", now(60), 1)
        assert tokens.is_revoked(session, "later")
    database.dispose()


def test_roles_that_used_the_old_table_may_use_its_view(postgres: str) -> None:
    role = f"r{uuid4().hex[:12]}"
    make_old_release(postgres)
    run_sql(postgres, f"CREATE ROLE {role}", f"GRANT SELECT, INSERT ON revoked_tokens TO {role}")
    try:
        migrate.upgrade(postgres)
        run_sql(postgres, f"SET ROLE {role}", OLD_REVOKE.format(jti="by a role"), "SELECT * FROM revoked_tokens")
    finally:
        run_sql(postgres, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_every_older_revision_is_known_by_its_tables(url: str, revision: str) -> None:
    make_old_release(url)
    run_sql(
        url,
        *["ALTER TABLE dream_tasks DROP COLUMN error_class"],
        *(["DROP TABLE dream_periodic"] if revision < "0003" else ["SELECT 1"]),
        *(
            [
                f"ALTER TABLE dream_images DROP COLUMN {each}"
                for each in ("variants", "wanted_variants", "dominant_colour")
            ]
            if revision < "0002"
            else ["SELECT 1"]
        ),
        f"UPDATE alembic_version SET version_num = '{revision}'",  # noqa: S608
    )
    assert migrate.current(url) == revision
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    assert "alembic_version" not in tables(url)
    assert_as_the_models_say(url)


@pytest.mark.parametrize("is_old", [False, True], ids=["empty", "older release"])
def test_two_that_migrate_at_once_do_it_once(url: str, is_old: bool) -> None:
    if is_old:
        make_old_release(url)
    barrier, failed = threading.Barrier(4), []

    def run() -> None:
        barrier.wait(10)
        try:
            migrate.upgrade(url)
        except Exception as error:  # noqa: BLE001 (whatever it is, the test shows it)
            failed.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert migrate.current(url) == migrate.head()
    assert_as_the_models_say(url)


def test_a_newer_releases_database_is_refused_in_a_sentence(url: str) -> None:
    migrate.upgrade(url)
    run_sql(url, "UPDATE dream_alembic_version SET version_num = '9999'")
    with pytest.raises(DatabaseRefused, match=r"revision 9999.*newer release"):
        migrate.upgrade(url)


# --- an application with Alembic


class AlembicApp:
    """An application with its own Alembic, whose revisions are called as ours are."""

    def __init__(self, folder: Path, url: str) -> None:
        versions = folder / "versions"
        versions.mkdir(parents=True)
        (folder / "env.py").write_text(
            "from alembic import context\n"
            "from sqlalchemy import create_engine\n"
            "engine = create_engine(context.config.attributes['url'])\n"
            "with engine.begin() as connection:\n"
            "    context.configure(connection=connection)\n"
            "    context.run_migrations()\n"
            "engine.dispose()\n"
        )
        before = None
        for revision in ("0003", "0004", "0007"):
            (versions / f"{revision}_app.py").write_text(
                f"from alembic import op\nrevision, down_revision = {revision!r}, {before!r}\n"
                f"def upgrade():\n    op.execute('CREATE TABLE app_{revision} (id integer PRIMARY KEY)')\n"
            )
            before = revision
        self._config = Config()
        self._config.set_main_option("script_location", str(folder))
        self._config.attributes["url"] = url.replace("postgresql://", "postgresql+psycopg://")

    def upgrade(self, revision: str = "head") -> None:
        command.upgrade(self._config, revision)


@pytest.mark.parametrize("first", ["application", "dream", "older release"])
def test_an_application_with_alembic_stands_beside_us(url: str, tmp_path: Path, first: str) -> None:
    app = AlembicApp(tmp_path / "app", url)
    if first == "application":
        app.upgrade("0004")
    elif first == "older release":
        make_old_release(url)
    migrate.upgrade(url)
    app.upgrade()
    migrate.upgrade(url)
    app.upgrade()
    assert run_sql(url, "SELECT version_num FROM alembic_version") == [("0007",)]
    assert run_sql(url, "SELECT version_num FROM dream_alembic_version") == [(migrate.head(),)]
    assert tables(url) - {"revoked_tokens"} == OURS | {"dreams", "alembic_version", "app_0003", "app_0004", "app_0007"}


def test_an_application_that_has_stamped_over_our_old_revision_keeps_its_own(url: str, tmp_path: Path) -> None:
    """A project that shared `alembic_version` with an older release had to do so."""
    make_old_release(url)
    run_sql(url, "UPDATE alembic_version SET version_num = 'a1b2c3'")
    migrate.upgrade(url)
    assert run_sql(url, "SELECT version_num FROM alembic_version") == [("a1b2c3",)]
    assert migrate.current(url) == migrate.head()


# --- an application with Django

DJANGO = """
import sys
import django
from django.conf import settings
from django.core.management import call_command
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DATABASES={"default": dict(zip(("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT"), sys.argv[1:], strict=True))},
)
django.setup()
call_command("migrate", verbosity=0)
"""


def migrate_django(url: str) -> None:
    parts = sa.make_url(url)
    engine = "sqlite3" if url.startswith("sqlite") else "postgresql"
    values = (parts.database, parts.username, parts.password, parts.host, parts.port)
    command_line = [sys.executable, "-c", DJANGO, f"django.db.backends.{engine}", *(str(each or "") for each in values)]
    subprocess.run(command_line, check=True, timeout=100)


@pytest.mark.parametrize("first", ["django", "dream"])
def test_djangos_tables_stand_beside_us(url: str, first: str) -> None:
    if first == "django":
        migrate_django(url)
    migrate.upgrade(url)
    migrate_django(url)
    assert tables(url) > OURS | {"auth_user", "django_migrations"}
    migrate.upgrade(url)


# --- an application's tables of our names

FOREIGN = (
    "CREATE TABLE dreams (key varchar(40) PRIMARY KEY, owner_id bigint, body text)",
    "CREATE TABLE revoked_tokens (token text PRIMARY KEY, reason text)",
    "CREATE TABLE users (id bigint PRIMARY KEY, name text)",
    "INSERT INTO dreams VALUES ('7', 3, 'flying')",
    "INSERT INTO revoked_tokens VALUES ('x', 'lost')",
    "INSERT INTO users VALUES (3, 'ann')",
)
OWNERS_SQL = (
    "SELECT u.id, u.name FROM dreams d JOIN users u ON u.id = d.owner_id WHERE d.key = CAST(:dream_id AS varchar(40))"
)


def test_an_applications_own_tables_of_these_names_are_left_alone(url: str) -> None:
    run_sql(url, *FOREIGN)
    migrate.upgrade(url, with_dreams=False)
    migrate.upgrade(url, with_dreams=False)
    assert tables(url) == OURS | {"dreams", "revoked_tokens", "users"}
    assert run_sql(url, "SELECT * FROM dreams") == [("7", 3, "flying")]
    assert run_sql(url, "SELECT * FROM revoked_tokens") == [("x", "lost")]
    database = database_at(url, owners_sql=OWNERS_SQL)
    with database.begin() as session:
        assert dreams.owner_of(session, 7, OWNERS_SQL) == dreams.Owner(3, "ann")
        tokens.revoke(session, "mine", now(60), 1)
        assert tokens.is_revoked(session, "mine")
    database.dispose()


def test_an_applications_table_revoked_tokens_of_our_old_shape_is_left_alone_too(url: str) -> None:
    run_sql(url, "CREATE TABLE revoked_tokens (jti varchar(255) PRIMARY KEY, expires_at timestamp, user_id bigint)")
    run_sql(url, "INSERT INTO revoked_tokens VALUES ('x', '2026-01-01', 1)")
    migrate.upgrade(url)
    assert run_sql(url, "SELECT jti FROM revoked_tokens") == [("x",)]
    assert run_sql(url, "SELECT jti FROM dream_revoked_tokens") == []


def test_a_table_dreams_of_another_shape_is_refused_with_what_to_do(url: str) -> None:
    run_sql(url, *FOREIGN)
    with pytest.raises(DatabaseRefused, match="table dreams that is not dream's: set DREAM_OWNERS_SQL"):
        migrate.upgrade(url)
    assert tables(url) == {"dreams", "revoked_tokens", "users"}


def test_another_table_of_our_names_is_refused_with_what_to_do(url: str) -> None:
    run_sql(url, "CREATE TABLE dream_images (id integer PRIMARY KEY, caption text)")
    with pytest.raises(DatabaseRefused, match=r"table dream_images that is not dream's: .*DREAM_DATABASE_SCHEMA"):
        migrate.upgrade(url)
    assert tables(url) == {"dream_images"}


def test_the_table_dreams_is_made_once_no_query_names_the_owners_any_more(url: str) -> None:
    migrate.upgrade(url, with_dreams=False)
    assert "dreams" not in tables(url)
    migrate.upgrade(url)
    assert_as_the_models_say(url)


# --- a schema of our own


def test_a_schema_holds_all_of_ours_and_nothing_else_is_looked_at(postgres: str) -> None:
    """`dream_tasks` in `public` is the application's, and so is what the owners' query finds."""
    run_sql(
        postgres, *FOREIGN, "CREATE TABLE dream_tasks (id integer)", "CREATE TABLE alembic_version (version_num text)"
    )
    before = tables(postgres)
    for _ in range(2):
        migrate.upgrade(postgres, schema="user", with_dreams=False)  # a reserved word
    assert tables(postgres) == before
    assert tables(postgres, "user") == OURS
    assert migrate.current(postgres, schema="user") == migrate.head()
    database = database_at(postgres, database_schema="user", owners_sql=OWNERS_SQL)
    with database.begin() as session:
        session.add(DreamTask(id="t", name="x", args=[]))
        assert dreams.owner_of(session, 7, OWNERS_SQL) == dreams.Owner(3, "ann")
        assert dreams.owner_of(session, 8, OWNERS_SQL) is None
        assert session.scalars(sa.select(DreamTask.id)).all() == ["t"]
    with database.read() as session:
        assert session.scalars(sa.select(DreamTask.id)).all() == ["t"]
    assert not database.is_bare()
    database.dispose()


def test_two_schemas_of_a_database_know_nothing_of_each_other(postgres: str, caplog: pytest.LogCaptureFixture) -> None:
    """The second is a warning, because a setting may be wrong."""
    warned = "tables_in_another_schema"
    migrate.upgrade(postgres)
    assert warned not in caplog.text
    migrate.upgrade(postgres, schema="second")
    assert warned in caplog.text
    assert "public" in caplog.text
    caplog.clear()
    migrate.upgrade(postgres, schema="second")
    assert warned not in caplog.text
    first, second = database_at(postgres), database_at(postgres, database_schema="second")
    with second.begin() as session:
        dreams.give_to(session, 7, 3, "ann")
    with first.read() as session:
        assert dreams.owner_of(session, 7) is None
    with second.read() as session:
        assert dreams.owner_of(session, 7) == dreams.Owner(3, "ann")
    first.dispose()
    second.dispose()


def test_tables_that_were_moved_into_the_schema_are_ours_there(postgres: str) -> None:
    """The way from `public`: once they are migrated, `ALTER TABLE … SET SCHEMA`."""
    make_old_release(postgres)
    migrate.upgrade(postgres)
    run_sql(postgres, "DROP VIEW revoked_tokens", "CREATE SCHEMA own")
    run_sql(postgres, *[f"ALTER TABLE {name} SET SCHEMA own" for name in OURS | {"dreams"}])
    migrate.upgrade(postgres, schema="own")
    database = database_at(postgres, database_schema="own")
    with database.read() as session:
        assert session.scalars(sa.select(DreamTask.id)).all() == ["t"]
        assert session.scalars(sa.select(Dream.id)).all() == [7]
    database.dispose()


def test_a_role_that_may_create_no_schema_uses_one_that_is_there(postgres: str) -> None:
    role = f"r{uuid4().hex[:12]}"
    run_sql(postgres, f"CREATE ROLE {role} LOGIN PASSWORD 'secret'", f"CREATE SCHEMA own AUTHORIZATION {role}")
    try:
        url = sa.make_url(postgres).set(username=role, password="secret").render_as_string(hide_password=False)
        migrate.upgrade(url, schema="own")
        migrate.upgrade(url, schema="own")
        with pytest.raises(sa.exc.ProgrammingError, match="permission denied"):
            migrate.upgrade(url, schema="another")
        assert tables(postgres, "own") == OURS | {"dreams"}
    finally:
        run_sql(postgres, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_an_upload_in_the_callers_own_transaction_goes_into_our_schema(settings: Settings, postgres: str) -> None:
    """The caller's session knows nothing of it: its own tables are found before, between and after."""
    run_sql(postgres, *FOREIGN, "CREATE TABLE dream_tasks (id integer)")
    migrate.upgrade(postgres, schema="own", with_dreams=False)
    changes = {"database_url": postgres, "database_schema": "own", "owners_sql": OWNERS_SQL}
    producer = Producer(settings.model_copy(update=changes))
    engine = sa.create_engine(postgres.replace("postgresql://", "postgresql+psycopg://"))
    insert = sa.text("INSERT INTO dreams VALUES (:key, 3, 'x')")
    with Session(engine) as session, session.begin():
        session.execute(insert, {"key": "8"})
        task_id = producer.upload_images(8, [PICTURE], [0], session=session)
        session.execute(insert, {"key": "9"})
    with Session(engine) as session:
        producer.upload_images(8, [PICTURE], [0], session=session)
        session.execute(insert, {"key": "10"})
        session.rollback()
    assert run_sql(postgres, "SELECT key FROM dreams ORDER BY length(key), key") == [("7",), ("8",), ("9",)]
    assert run_sql(postgres, "SELECT id FROM own.dream_tasks") == [(task_id,)]
    assert run_sql(postgres, "SELECT id FROM dream_tasks") == []
    engine.dispose()
    producer.close()
