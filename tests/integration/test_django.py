"""A small Django project whose `celery.py` imports from `dream.compat`: its web process and its worker, as they run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import environment_in, prepare, settings_from
from tests.processes import WORKER, Parts

FILES = {
    "mysite/__init__.py": "from .celery import app as celery_app\n__all__ = ('celery_app',)\n",
    "mysite/settings.py": """
from pathlib import Path
SECRET_KEY = "not a secret"
INSTALLED_APPS = ["orders.apps.OrdersConfig"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parents[1] / "site.db"}}
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
    "orders/__init__.py": "",
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
from django.db import connection
from dream.compat import shared_task
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
    was_open = connection.connection is not None
    Order.objects.count()
    return was_open
""",
}
TASKS = ("count", "has_connection", "process", "ship")
HEAD = """
import os, django
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
from django.db import transaction
from mysite import celery_app
from orders.models import Order
from orders.tasks import count, has_connection, process, ship
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
        str(["mysite.celery.debug_task", *(f"orders.tasks.{name}" for name in TASKS)]),
    ]


def test_a_run_leaves_no_connection_that_django_would_close(site: Site) -> None:
    """With Django's default, none outlives a request, or a run: one that is broken fails no later task."""
    assert site.run("print([has_connection.delay().get(timeout=20) for _ in range(3)])") == ["[False, False, False]"]


def test_the_scheduler_keeps_the_schedule_of_the_settings(site: Site) -> None:
    said = site.run("""
from dream.compat.periodic import periodic_tasks
celery_app.finalize()
print([each.name for each in periodic_tasks(celery_app)])
""")
    assert said == ["['count']"]
