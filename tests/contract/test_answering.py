"""A worker that is asked what it does: also after an outage of Redis."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from dramatiq import Worker

from dream.compat import Celery
from dream.settings import Settings
from tests.conftest import wait_for
from tests.network import Proxy
from tests.this_process import configured
from tests.workers import answering_broker


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut", "swallow"])
def test_a_worker_hears_questions_again_after_an_outage(
    fault: str,
    environment: dict[str, str],
    settings_of: Callable[..., Settings],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It says once that it did not hear them."""
    parts = urlsplit(environment["DREAM_BROKER_URL"])
    with configured(environment), contextlib.closing(Proxy((parts.hostname or "", parts.port or 0))) as network:
        redis_url = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{network.port}").geturl()
        broker = answering_broker(settings_of(environment, redis_url=redis_url), "one")
        worker = Worker(broker, worker_threads=1)
        worker.start()
        control = Celery("shop").control
        assert control.ping(timeout=5), "it is heard from the moment that it takes messages"
        getattr(network, fault)()
        wait_for(lambda: not control.ping(timeout=0.05), what="silence")
        network.restore()
        wait_for(lambda: control.ping(timeout=0.2), what="an answer after the outage")
        worker.stop()
        broker.close()
    assert sum("questions_not_heard" in record.getMessage() for record in caplog.records) <= 1
