"""A small Django project whose `celery.py` imports from `dream.compat`: its web process and its worker, as they run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import environment_in, prepare, settings_from
from tests.processes import WORKER, Parts

pytestmark = pytest.mark.slow

FILES = {
    "mysite/__init__.py": "from .celery import app as celery_app\n__all__ = ('celery_app',)\n",
    "mysite/settings.py": """
import os
from pathlib import Path
SECRET_KEY = "not a secret"
INSTALLED_APPS = ["orders.apps.OrdersConfig"]
ROOT_URLCONF = os.environ.get("SITE_URLS", "mysite.urls")
HERE = Path(__file__).parents[1]
DATABASES = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE / f"{name}.db"} for name in ("default", "archive")
}
CACHES = {"default": {"BACKEND": "orders.caches.Noted"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "Europe/Berlin"
CELERY_TASK_DEFAULT_QUEUE = "site"
CELERY_TASK_ROUTES = {"orders.tasks.ship": {"queue": "shipping"}}
CELERY_TIMEZONE = TIME_ZONE
CELERY_TASK_TRACK_STARTED = True
CELERY_BEAT_SCHEDULE = {"count": {"task": "orders.tasks.count", "schedule": 30.0}}
""",
    "mysite/celery.py": """
import os
from dream.compat import Celery
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
app = Celery("mysite")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

@app.task(bind=True, ignore_result=True)
def debug_task(self):
    print(f"Request: {self.request!r}")
""",
    "mysite/urls.py": """
from django.urls import path
from orders import views
urlpatterns = [path("report", views.report)]
""",
    "mysite/broken.py": "import not_there_at_all\n",
    "mysite/wrong.py": "import os\nos.environ['NOT_SET_AT_ALL']\n",
    "orders/__init__.py": "",
    "orders/caches.py": """
from django.core.cache.backends.locmem import LocMemCache
class Noted(LocMemCache):
    closed = 0
    def close(self, **_):
        Noted.closed += 1
""",
    "orders/reports.py": """
from dream.compat import shared_task
@shared_task
def export():
    return "exported"
""",
    "orders/views.py": """
from django.http import HttpResponse
from .reports import export
def report(request):
    return HttpResponse(export.delay().id)
""",
    "orders/apps.py": """
from django.apps import AppConfig
class OrdersConfig(AppConfig):
    name = "orders"
""",
    "orders/models.py": """
from django.db import models
class Order(models.Model):
    state = models.CharField(max_length=20, default="new")
""",
    "orders/migrations/__init__.py": "",
    "orders/migrations/0001_initial.py": """
from django.db import migrations, models
class Migration(migrations.Migration):
    operations = [
        migrations.CreateModel("Order", [
            ("id", models.BigAutoField(primary_key=True)),
            ("state", models.CharField(max_length=20, default="new")),
        ])
    ]
""",
    "orders/tasks.py": """
from django.core.cache import caches
from django.db import connection, connections
from dream.compat import shared_task
from .caches import Noted
from .models import Order

@shared_task(bind=True)
def process(self, order_id):
    order = Order.objects.get(pk=order_id)
    order.state = "processed"
    order.save()
    return [order.state, self.request.delivery_info["routing_key"]]

@shared_task(bind=True)
def ship(self, order_id):
    return self.request.delivery_info["routing_key"]

@shared_task
def count():
    return Order.objects.count()

@shared_task
def has_connection():
    were_open = [each.connection is not None for each in connections.all()]
    for each in connections.all():
        each.ensure_connection()
    return were_open

@shared_task
def has_closed_caches():
    before = Noted.closed
    caches["default"].get("x")
    return before

@shared_task
def keeps_its_connection():
    connection.ensure_connection()
    count.apply()
    return connection.connection is not None
""",
}
TASKS = ("count", "has_closed_caches", "has_connection", "keeps_its_connection", "process", "ship")
HEAD = """
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
from django.db import transaction
from mysite import celery_app
from orders.models import Order
from orders.tasks import *
sent = []
from dream.compat.signals import after_task_publish
@after_task_publish.connect
def note(sender=None, headers=None, **_):
    sent.append(headers["id"])
"""


class Site:
    """The project, and what a web process of it says."""

    def __init__(self, folder: Path, environment: dict[str, str], parts: Parts) -> None:
        self.folder = folder
        self.parts = parts
        self._environment = environment

    def run(self, program: str) -> list[str]:
        answer = subprocess.run(
            [sys.executable, "-c", HEAD + program],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.splitlines()


@pytest.fixture(scope="module")
def site(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    environment = environment_in(folder, servers)
    prepare(settings_from(environment))
    parts = Parts(environment, folder)
    site = Site(folder, {"PATH": "", "PYTHONPATH": str(WORKER.parents[2]), **environment}, parts)
    site.run("from django.core.management import call_command; call_command('migrate', verbosity=0)")
    parts.start("-A", "mysite", "worker", "-c", "1", program=[str(WORKER)], cwd=folder)
    yield site
    parts.end()


def test_a_task_is_sent_once_its_transaction_has_been_committed(site: Site) -> None:
    """And not at all where it is rolled back; at once where there is none."""
    said = site.run("""
with transaction.atomic():
    order = Order.objects.create()
    process.delay_on_commit(order.pk)
    print(len(sent))
print(len(sent), celery_app.AsyncResult(sent[0]).get(timeout=20))
order.refresh_from_db()
print(order.state)
try:
    with transaction.atomic():
        process.delay_on_commit(Order.objects.create().pk)
        raise LookupError
except LookupError:
    print(len(sent), Order.objects.count())
process.apply_async_on_commit(args=(order.pk,), queue="shipping")
print(celery_app.AsyncResult(sent[1]).get(timeout=20))
""")
    assert said == ["0", "1 ['processed', 'site']", "processed", "1 1", "['processed', 'shipping']"]


def test_the_settings_of_django_are_the_apps(site: Site) -> None:
    said = site.run("""
print(ship.delay(1).get(timeout=20), type(count.delay().get(timeout=20)))
print(celery_app.conf.task_track_started, celery_app.conf.timezone, celery_app.conf.beat_schedule["count"]["schedule"])
print(sorted(name for names in celery_app.control.inspect(timeout=10).registered().values() for name in names
             if name.startswith(("mysite", "orders"))))
""")
    assert said == [
        "shipping <class 'int'>",
        "True Europe/Berlin 30.0",
        str(["mysite.celery.debug_task", "orders.reports.export", *(f"orders.tasks.{name}" for name in TASKS)]),
    ]


def test_a_run_leaves_no_connection_that_django_would_close(site: Site) -> None:
    """With Django's default, none outlives a request, or a run, to whichever database: one that is broken fails no
    later task. Caches are closed too, and what a task runs in place leaves its connection alone.
    """
    said = site.run("""
print([has_connection.delay().get(timeout=20) for _ in range(3)])
closed = [has_closed_caches.delay().get(timeout=20) for _ in range(2)]
print(closed[0] < closed[1], keeps_its_connection.delay().get(timeout=20))
""")
    assert said == [str([[False, False]] * 3), "True True"]


def test_a_task_that_only_the_urlconf_imports_runs(site: Site) -> None:
    """As in Celery, a worker runs Django's system checks, which import the views."""
    said = site.run("""
from dream.compat import Celery
print(celery_app.send_task("orders.reports.export").get(timeout=20))
""")
    assert said == ["exported"]


def test_a_failed_check_is_told_and_stops_nothing(site: Site) -> None:
    """As in Celery: but for the line, which Celery does not write; a silenced one is not told."""
    program = """
import logging, sys
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from django.conf import settings
from django.core import checks
settings.SILENCED_SYSTEM_CHECKS = ["shop.E002"]
@checks.register()
def shop(app_configs, **_):
    return [checks.Error("it is closed", id="shop.E001"), checks.Error("it is sad", id="shop.E002"),
            checks.Warning("it rains", id="shop.W001")]
celery_app.finalize()
print("orders.reports.export" in celery_app.tasks)
"""
    assert site.run(program) == [
        "a system check of Django failed; manage.py would not start: ?: (shop.E001) it is closed",
        "True",
    ]
    assert site.run('os.environ["CELERY_SKIP_CHECKS"] = "true"' + program) == ["False"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SITE_URLS": "mysite.wrong"}, "mysite/wrong.py, line 2: 'NOT_SET_AT_ALL'"),
        ({"DJANGO_SETTINGS_MODULE": "mysite.nowhere"}, "No module named 'mysite.nowhere'"),
    ],
)
def test_a_django_that_cannot_be_set_up_ends_the_worker_with_one_line(
    site: Site, variables: dict[str, str], said: str
) -> None:
    """It was started again and again, each time with a traceback."""
    worker = site.parts.start(
        "-A", "mysite", "worker", "-c", "1", ready=False, program=[str(WORKER)], cwd=site.folder, **variables
    )
    assert worker.wait(30) == 2
    assert said in site.parts.log_of(worker)
    assert "Traceback" not in site.parts.log_of(worker)


def test_a_urlconf_that_cannot_be_imported_ends_the_worker_with_one_line(site: Site) -> None:
    """Unless it is told to leave the checks out, as Celery's `--skip-checks` says."""
    broken = {"program": [str(WORKER)], "cwd": site.folder, "SITE_URLS": "mysite.broken"}
    worker = site.parts.start("-A", "mysite", "worker", "-c", "1", ready=False, **broken)
    assert worker.wait(30) == 2
    said = site.parts.log_of(worker)
    assert "mysite cannot be loaded: ModuleNotFoundError" in said
    assert "not_there_at_all" in said
    assert "Traceback" not in said
    site.parts.stop(site.parts.start("-A", "mysite", "worker", "-c", "1", "--skip-checks", **broken))


def test_the_scheduler_keeps_the_schedule_of_the_settings(site: Site) -> None:
    said = site.run("""
from dream.compat.periodic import periodic_tasks
celery_app.finalize()
print([each.name for each in periodic_tasks(celery_app)])
""")
    assert said == ["['count']"]


@pytest.mark.parametrize("environment", [{}, {"DJANGO_SETTINGS_MODULE": ""}], ids=["not set", "empty"])
def test_a_project_that_is_not_djangos_may_import_parts_of_it(environment: dict[str, str]) -> None:
    """A library may do so: without settings there is nothing to set up, and nothing to close around a run."""
    program = """
import django.core.cache, django.db
from dream.compat import Celery
from dream.compat.app.context import Context
from dream.compat.app.trace import trace
from dream.compat.django import care_for_connections
app = Celery("shop")
add = app.task(lambda x, y: x + y, name="shop.add")
app.finalize()
care_for_connections()
print(trace(add, Context(id="a", args=(1, 2), kwargs={})).value)
"""
    environment = {"PATH": "", "PYTHONPATH": str(WORKER.parents[2]), **environment}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (answer.stdout, answer.stderr) == ("3\n", "")
