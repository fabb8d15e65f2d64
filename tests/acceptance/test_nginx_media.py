"""Pictures through nginx (`DREAM_MEDIA_MODE=accel`): a real nginx with our files, a real gateway, SeaweedFS by TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from dream.db import DreamImage
from dream.db.dreams import give_to
from dream.messages.states import ImageState
from dream.settings import Settings
from dream.stack.ports import choose
from dream.stack.servers import new_certificate
from dream.storage import Storage
from tests.conftest import environment_in, prepare, settings_from
from tests.gateway import DREAM, KEY, OWNER, Gateway, auth
from tests.nginx import filled_in, nginx

BYTES = bytes(range(256)) * 4096  # 1 MiB, as large as a processed picture may be
FORGET_S = 240


class Site:
    """A client of nginx, the gateway behind it, and the store's own log of what it was asked."""

    def __init__(
        self, client: httpx.Client, gateway: Gateway, store: Storage, asked: Path, environment: dict[str, str]
    ) -> None:
        self.client = client
        self.environment = environment
        self.gateway = gateway
        self.store = store
        self._asked = asked

    def asked(self) -> str:
        """Method, host, path and the client's headers of each request to the store, a line each."""
        return self._asked.read_text()

    @property
    def bucket(self) -> str:
        return self.gateway.settings.s3_bucket


@pytest.fixture(scope="module")
def site(servers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("nginx"), servers) as site:
        yield site


@contextmanager
def serving(folder: Path, servers: dict[str, str], **changes: str) -> Iterator[Site]:
    (certificate := folder / "nginx.pem").write_text(new_certificate())
    port, store_port = choose(), choose()
    environment = environment_in(folder, servers)
    plain = prepare(settings_from(environment))
    # The store is at https://localhost: nginx with a certificate stands before SeaweedFS.
    accel = {
        **environment,
        "DREAM_S3_ENDPOINT_URL": f"https://localhost:{store_port}",
        "DREAM_MEDIA_MODE": "accel",
        "DREAM_MEDIA_FORGET_S": str(FORGET_S),
        "DREAM_TRUSTED_PROXIES": "127.0.0.1",
        "DREAM_NEGOTIATE": "yes",
        "DREAM_VARIANT_WAIT_S": "0.1",
        "DREAM_PORT": "0",
        **changes,
    }
    with Gateway(accel, settings_from(accel), folder) as gateway:
        sites = _sites(folder, certificate, port, store_port, gateway.port, plain)
        trust = ssl.create_default_context(cafile=str(certificate))
        url = f"https://127.0.0.1:{port}"
        with nginx(folder, sites, port), httpx.Client(base_url=url, verify=trust, trust_env=False) as client:
            store = Storage(plain)
            _store_picture(gateway, store)
            yield Site(client, gateway, store, folder / "asked.log", accel)


def _sites(folder: Path, certificate: Path, port: int, store_port: int, gateway_port: int, plain: Settings) -> str:
    (folder / "dream-store.conf").write_text(
        filled_in(
            "dream-store.conf",
            {
                "s3.example.com;": f"localhost:{store_port};",
                "proxy_pass https://$dream_store$": "proxy_pass https://store_of_the_test$",
                "/etc/ssl/certs/ca-certificates.crt": str(certificate),
            },
        )
    )
    site = filled_in(
        "dream.conf",
        {
            "listen 443": f"listen 127.0.0.1:{port}",
            "127.0.0.1:8000": f"127.0.0.1:{gateway_port}",
            "/etc/ssl/dream/fullchain.pem": str(certificate),
            "/etc/ssl/dream/privkey.pem": str(certificate),
            "/etc/nginx/snippets/": f"{folder}/",
        },
    )
    seaweedfs = urlsplit(plain.s3_endpoint_url or "").netloc
    return f"""
{site}
upstream store_of_the_test {{ server 127.0.0.1:{store_port}; }}
log_format asked '$request_method $http_host $request_uri [$http_authorization] [$http_cookie] [$http_range]';
server {{
    listen 127.0.0.1:{store_port} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    access_log {folder}/asked.log asked;
    location ~ 3\\.jpg$ {{ return 403 '<Error><Code>SignatureDoesNotMatch</Code></Error>'; }}
    location ~ 4\\.jpg$ {{ return 307 https://elsewhere.example.com$request_uri; }}
    location ~ 5\\.jpg$ {{
        add_header Access-Control-Allow-Origin *;
        add_header X-Accel-Redirect /healthz;
        return 200 'picture';
    }}
    location / {{
        proxy_set_header Host $http_host;
        proxy_pass http://{seaweedfs};
    }}
}}"""


def _store_picture(gateway: Gateway, store: Storage) -> None:
    image_id = gateway.add_image()
    with gateway.database.begin() as session:
        image = session.get_one(DreamImage, image_id)
        image.width_px, image.height_px, image.content_type = 400, 300, "image/jpeg"
    picture = gateway.log.parent / "picture.jpg"
    picture.write_bytes(BYTES)
    store.put_file(gateway.settings.s3_bucket, KEY, picture, "image/jpeg")


def _policy(answer: httpx.Response) -> set[str]:
    return set(answer.headers.get_list("cache-control", split_commas=True))


def test_a_browser_gets_the_picture_from_its_url_itself_with_the_stores_type_and_the_gateways_policy(
    site: Site,
) -> None:
    answer = site.client.get(f"/media/{KEY}", headers={**auth(), "Cookie": "session=1"})
    assert (answer.status_code, answer.content) == (200, BYTES)
    assert answer.headers["content-type"] == "image/jpeg"
    assert _policy(answer) == {"private", f"max-age={FORGET_S}"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers.get_list("cross-origin-resource-policy") == ["cross-origin"]
    assert not {"location", "set-cookie", "x-accel-redirect", "x-amz-request-id"} & set(answer.headers)


def test_caches_are_told_that_accept_decides_and_keep_no_stand_in(site: Site) -> None:
    """The AVIF that Chromium prefers is not made yet."""
    stored = site.client.get(f"/media/{KEY}", headers={"Accept": "image/*"})
    assert (stored.headers["vary"], _policy(stored)) == ("Accept", {"private", f"max-age={FORGET_S}"})
    tag = {"Accept": "image/*", "If-None-Match": stored.headers["etag"]}
    again = site.client.get(f"/media/{KEY}", headers=tag)
    assert (again.status_code, again.headers["vary"]) == (304, "Accept")
    stand_in = site.client.get(f"/media/{KEY}", headers={"Accept": "image/avif,image/*"})
    assert (stand_in.headers["vary"], _policy(stand_in)) == ("Accept", {"private", "max-age=0"})


def test_the_store_sees_neither_token_nor_cookie_of_the_client(site: Site) -> None:
    """SeaweedFS, as S3, refuses a request with a signature in the URL and another authorization in its head."""
    site.client.get(f"/media/{KEY}", headers={**auth(), "Cookie": "session=1", "Range": "bytes=0-0"})
    lines = site.asked().splitlines()
    assert lines[-1].endswith("[-] [-] [bytes=0-0]")
    assert all(urlsplit(site.gateway.settings.s3_endpoint_url or "").netloc == line.split()[1] for line in lines)


def test_a_head_has_the_length_and_no_body(site: Site) -> None:
    answer = site.client.head(f"/media/{KEY}")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(BYTES)), b"")
    assert site.asked().splitlines()[-1].startswith("HEAD ")


def test_a_part_of_the_picture_can_be_read(site: Site) -> None:
    answer = site.client.get(f"/media/{KEY}", headers={"Range": "bytes=10-19"})
    assert (answer.status_code, answer.content) == (206, BYTES[10:20])
    assert answer.headers["content-range"] == f"bytes 10-19/{len(BYTES)}"
    beyond = site.client.get(f"/media/{KEY}", headers={"Range": f"bytes={len(BYTES)}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_there")
    assert beyond.headers["content-range"] == f"bytes */{len(BYTES)}"
    assert beyond.headers["content-type"] == "application/json"


def test_a_browser_that_has_the_picture_loads_no_byte_of_it_again(site: Site) -> None:
    tag = site.client.get(f"/media/{KEY}").headers["etag"]
    answer = site.client.get(f"/media/{KEY}", headers={"If-None-Match": tag})
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert _policy(answer) == {"private", f"max-age={FORGET_S}"}
    assert site.client.get(f"/media/{KEY}", headers={"If-None-Match": '"another"'}).content == BYTES


def test_a_picture_that_is_gone_is_404_in_json(site: Site) -> None:
    """Deleted in the database; and in the bucket alone, where the store's XML is no answer for a browser."""
    deleted = KEY.replace("0" * 32, f"{1:032x}")
    lost = KEY.replace("0" * 32, f"{2:032x}")
    site.gateway.add_image(ImageState.DELETED, number=1)
    site.gateway.add_image(number=2)
    site.store.put_bytes(site.bucket, deleted, b"x")
    for key in (deleted, lost):
        answer = site.client.get(f"/media/{key}")
        assert (answer.status_code, answer.json()) == (
            404,
            {"error": "there is no such picture", "code": "image_not_found"},
        )
        assert answer.headers["content-type"] == "application/json"
        assert _policy(answer) == {"no-store"}


@pytest.mark.parametrize(
    "path",
    [
        "/dream-store/0/{bucket}/{key}",
        "/dream-store/0//127.0.0.1:1/x",
        "/dream-store/../dream-store/0/{bucket}/{key}",
        "/media/%2e%2e/dream-store/0/{bucket}/{key}",
        "/media/http://127.0.0.1:1/x",
        "/media/{key}/../../../../{bucket}/{key}?X-Amz-Signature=0",
    ],
)
def test_a_client_cannot_name_what_nginx_fetches(site: Site, path: str) -> None:
    before = len(site.asked())
    head = {"X-Accel-Redirect": f"/dream-store/0/{site.bucket}/{KEY}"}
    raw = httpx.URL(site.client.base_url, raw_path=path.format(bucket=site.bucket, key=KEY).encode())
    assert site.client.get(raw, headers=head).status_code == 404
    assert len(site.asked()) == before


@pytest.mark.parametrize("number", [3, 4])
def test_an_error_or_a_redirect_of_the_store_is_503_in_json(site: Site, number: int) -> None:
    site.gateway.add_image(number=number)
    answer = site.client.get(f"/media/{KEY.replace('0' * 32, f'{number:032x}')}")
    assert (answer.status_code, list(answer.json()), answer.headers["retry-after"]) == (503, ["error", "code"], "5")
    assert answer.headers["content-type"] == "application/json"
    assert _policy(answer) == {"no-store"}
    assert "location" not in answer.headers


def test_a_header_of_the_store_leads_nginx_nowhere(site: Site) -> None:
    site.gateway.add_image(number=5)
    answer = site.client.get(f"/media/{KEY.replace('0' * 32, f'{5:032x}')}")
    assert (answer.status_code, answer.text) == (200, "picture")


def test_pages_of_allowed_sites_read_pictures_and_nginxs_errors(servers: dict[str, str], tmp_path: Path) -> None:
    """As they read the gateway's own answers: with the cookie for pictures too. The store allows nobody."""
    app = "https://app.example.org"
    named = {"DREAM_ALLOWED_ORIGINS": app, "DREAM_MEDIA_ACCESS": "owner", "DREAM_MEDIA_KEYS": "k" * 32}
    with serving(tmp_path, servers, **named) as site:
        with site.gateway.database.begin() as session:
            give_to(session, DREAM, OWNER, "olga")
        for number in (2, 3, 5):
            site.gateway.add_image(number=number)
        for number, status in ((0, 200), (1, 404), (2, 404), (3, 503), (5, 200)):
            path = f"/media/{KEY.replace('0' * 32, f'{number:032x}')}"
            answer = site.client.get(path, headers={**auth(), "Origin": app})
            assert answer.status_code == status
            assert answer.headers.get_list("access-control-allow-origin") == [app]
            assert answer.headers.get_list("access-control-allow-credentials") == ["true"]
            assert "Content-Range" in answer.headers["access-control-expose-headers"]
            other = site.client.get(path, headers={**auth(), "Origin": "https://evil.example"})
            assert other.status_code == status
            assert "access-control-allow-origin" not in other.headers
            if status == 200:
                assert all("Origin" in each.headers["vary"] for each in (answer, other))


def test_a_download_through_nginx_has_the_uploaded_files_name(site: Site) -> None:
    answer = site.client.get(f"/media/{KEY}?download")
    assert (answer.status_code, answer.content) == (200, BYTES)
    assert answer.headers["content-disposition"] == 'attachment; filename="0.jpg"'


@pytest.mark.slow
def test_the_gateway_passes_pictures_on_from_a_store_with_tls(site: Site, tmp_path: Path) -> None:
    """The gateway trusts the authorities that boto3 trusts; a certificate of another one gives 503 and no picture."""
    certificate = site.gateway.log.parent / "nginx.pem"
    own = {**site.environment, "DREAM_MEDIA_MODE": "proxy", "DREAM_PORT": "0"}
    for bundle, status in ((str(certificate), 200), ("", 503)):
        (folder := tmp_path / f"trust-{status}").mkdir()
        with Gateway({**own, "AWS_CA_BUNDLE": bundle}, site.gateway.settings, folder) as gateway:
            answer = gateway.http.get(f"/media/{KEY}")
            assert answer.status_code == status
            assert (answer.content == BYTES) == (status == 200)
