"""Celery's `broker_url`, as the façade and the bridge read it."""

from __future__ import annotations

import pika
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from dream.compat.adoption import client_url
from dream.errors import InvalidArguments
from dream.work.broker.rabbitmq import patient
from dream.work.redis_client import connect

#: With the database or virtual host that kombu finds by it.
URLS = {
    "redis://": "redis://localhost/0",
    "redis://h": "redis://h/0",
    "redis://h//": "redis://h/0",
    "redis://:p%40ss@h:1/3": "redis://:p%40ss@h:1/3",
    "rediss://h/1?ssl_cert_reqs=CERT_NONE": "rediss://h/1?ssl_cert_reqs=none",
    "redis+socket:///run/r.sock": "unix:///run/r.sock?db=0",
    "socket:///run/r.sock": "unix:///run/r.sock?db=0",
    "redis+socket:///run/r.sock?virtual_host=2&password=x": "unix:///run/r.sock?db=2&password=x",
    "amqp://guest:guest@h:5672//": "amqp://guest:guest@h:5672//",
    "pyamqp://h/v": "amqp://h/v",
    "pyamqp://": "amqp://localhost",
}
WRONG = {
    "localhost": "must be",
    "sqs://": "must be",
    "redis://h/abc": "a Redis database is a number, not 'abc'",
    "sentinel://a:1;sentinel://b:2": "must name all sentinels and the service: sentinel://HOST:PORT,HOST:PORT/SERVICE/0",
    "sentinel://a:1/0": "must name the service after the sentinels",
    "amqp://h:port//": "is no URL",
}
HOSTS = {
    "amqp://guest@h//": "/",
    "amqp://h": "/",
    "amqp://h/": "/",
    "amqp://h/%2F": "/",
    "amqp://h/v": "v",
    "amqp://h/a/b": "a/b",
}


@pytest.mark.parametrize(("url", "expected"), URLS.items())
def test_an_url_leads_where_kombu_goes(url: str, expected: str) -> None:
    assert client_url(url, "broker_url") == expected


@pytest.mark.parametrize(("url", "said"), WRONG.items())
def test_a_wrong_url_is_one_line_without_its_password(url: str, said: str) -> None:
    with pytest.raises(InvalidArguments, match=said) as raised:
        client_url(url, "broker_url")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(("url", "host"), HOSTS.items())
def test_all_behind_the_host_is_the_virtual_host(url: str, host: str) -> None:
    """And a user without a password has guest's, as in Celery."""
    parameters = pika.URLParameters(patient(url))
    assert parameters.virtual_host == host
    assert (parameters.credentials.username, parameters.credentials.password) == ("guest", "guest")


def test_a_socket_is_a_place_for_our_client() -> None:
    """It took none: its options were those of TCP."""
    client = connect(client_url("redis+socket:///run/nowhere.sock?virtual_host=2", "broker_url"))
    assert client.get_connection_kwargs()["db"] == 2
    with pytest.raises(RedisConnectionError, match=r"/run/nowhere\.sock"):
        client.ping()
