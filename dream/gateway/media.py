"""The requests for `/media/<key>`: the way from a picture's URL to its object.

    permission (`access`) ─► row, kept for a while (`catalogue`) ─► the object, by `DREAM_MEDIA_MODE`

`redirect`: a browser keeps a redirect for `DREAM_MEDIA_FORGET_S`, and the picture as long as the signed URL stays the
same (`DREAM_SIGN_WINDOW_S`). `accel`: nginx fetches the signed URL. `proxy`: the gateway fetches it (`proxied`). In
these two a browser keeps the picture for `DREAM_MEDIA_FORGET_S`; after that it asks whether the picture changed.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dream.errors import TokenRejected
from dream.gateway.access import set_cookie
from dream.gateway.credentials import identify
from dream.gateway.faults import SERVER_FAULTS
from dream.gateway.operations import Parameter, Returns, operation
from dream.gateway.proxied import Proxied, has_it, not_modified
from dream.gateway.refusals import Code, Refused
from dream.gateway.services import Services, services_of
from dream.gateway.versions import Answer
from dream.messages.disposition import attachment, picture_name

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from dream.gateway.access import Permission
    from dream.gateway.catalogue import Shown

__all__ = ["media", "media_cookie"]

#: The internal location of `deploy/nginx/dream-store.conf`.
_STORE = "/dream-store"
#: A picture that a browser opens as a page of its own runs no script.
_SANDBOX = "default-src 'none'; sandbox"


@operation(
    "Show a picture to a browser",
    {
        200: Returns("the picture, from the gateway or through nginx", {"type": "string"}, "image/*"),
        206: Returns("a part of the picture", {"type": "string"}, "image/*"),
        302: Returns("a presigned URL", media_type=None, headers={"Location": "the URL"}),
        304: Returns("the browser has it", media_type=None),
    },
    refusals=(Code.IMAGE_NOT_FOUND, Code.RANGE_NOT_THERE, TokenRejected, *SERVER_FAULTS, Code.STORE_TOO_SLOW),
    parameters=(
        Parameter("v", {"type": "string"}, "the name of a variant"),
        Parameter("download", {"type": "string"}, "save the picture under the name of the uploaded file"),
    ),
    access="anybody",
)
async def media(request: Request) -> ASGIApp:
    """Lead to the object; 404 for a picture that is unknown, unfinished or deleted, or that the client may not see."""
    services, key = services_of(request), request.path_params["key"]
    permission = services.access.permit(request, key)
    if permission is None:
        raise Refused(Code.IMAGE_NOT_FOUND, "there is no such picture")
    shown = await services.catalogue.find(key)
    if not await services.access.confirm(permission, shown) or shown is None:
        raise Refused(Code.IMAGE_NOT_FOUND, "there is no such picture")
    version = await _version(request, services, key, shown)
    if version is None:
        raise Refused(Code.IMAGE_NOT_FOUND, "there is no such picture")
    shown = version.shown
    keep_s = shown.keep_s(services.settings.media_forget_s) if version.is_final else 0
    if permission.expires_at is not None:
        keep_s = min(keep_s, max(0, int(permission.expires_at - time.time())))
    # A name may come from a stranger.
    is_saved = b"download" in request.scope["query_string"] and "download" in request.query_params
    name = attachment(picture_name(shown.filename, shown.content_type)) if is_saved else None
    if services.settings.media_mode == "redirect":
        return await _redirect(request, services, permission, version, keep_s, name)
    return await _passed_on(request, services, permission, version, keep_s, name)


async def _version(request: Request, services: Services, key: str, shown: Shown) -> Answer | None:
    """The version that the request asks for; None if no setting names it."""
    names = request.query_params.getlist("v") if request.scope["query_string"] else []
    if not names and not services.settings.negotiate:
        return Answer(shown)
    if len(names) > 1:
        return None
    return await services.versions.choose(key, names[0] if names else None, request.headers.get("accept"))


async def _redirect(
    request: Request, services: Services, permission: Permission, version: Answer, keep_s: int, name: str | None
) -> Response:
    shown = version.shown
    if name is None:
        signed = await services.catalogue.signed_url(shown, request.method)
    else:
        sign = partial(services.connections.storage.signed_url, disposition=name)
        signed = await run_in_threadpool(sign, shown.bucket, shown.key, request.method)
    # The signature of a HEAD is another one, so a cache must not use it for a GET.
    keep_s = min(keep_s, signed.keep_s) if request.method == "GET" else 0
    policy = f"private, max-age={keep_s}" if keep_s else "no-store"
    return Response(
        status_code=302, headers={"Location": signed.url, "Cache-Control": policy, **_vary(permission, version)}
    )


async def _passed_on(
    request: Request, services: Services, permission: Permission, version: Answer, keep_s: int, name: str | None
) -> ASGIApp:
    shown = version.shown
    headers = {**({"Content-Disposition": name} if name else {}), **_vary(permission, version)}
    if services.settings.media_mode == "accel":
        signed = await services.catalogue.signed_url(shown, request.method)
        return _through_nginx(signed.url, keep_s, headers)
    headers |= {
        "Cache-Control": _policy(services, permission, version, keep_s),
        "ETag": shown.tag,
        "Content-Security-Policy": _SANDBOX,
    }
    if has_it(request.headers, shown.tag):
        return not_modified(headers)
    sign = partial(services.catalogue.signed_url, shown, request.method)
    forget = partial(services.catalogue.forget_key, request.path_params["key"])
    return Proxied(services.objects, services.memory, shown, headers, sign, forget)


def _kept_by(services: Services, permission: Permission) -> str:
    """The caches that may keep the answer: a picture for a single user is kept by that user's browser alone."""
    return services.settings.media_cache if permission.user is None else "private"


def _policy(services: Services, permission: Permission, version: Answer, keep_s: int) -> str:
    if not version.is_final:
        return "no-store"
    return f"{_kept_by(services, permission)}, max-age={keep_s}" if keep_s else "no-cache"


def _vary(permission: Permission, version: Answer) -> dict[str, str]:
    names = ["Accept"] * version.varies + ["Authorization", "Cookie"] * (permission.user is not None)
    return {"Vary": ", ".join(names)} if names else {}


def _through_nginx(url: str, keep_s: int, headers: dict[str, str]) -> Response:
    """Let nginx fetch the object. The header has no host: nginx's own file names the one that it asks.

    Parameters:
      url: the signed URL.
      keep_s: how long a browser may keep the picture. This answer itself is `no-store`, and so are nginx's errors.
    """
    parts = urlsplit(url)
    return Response(headers={**headers, "X-Accel-Redirect": f"{_STORE}/{keep_s}{parts.path}?{parts.query}"})


@operation(
    "Get the cookie that shows a user's own pictures",
    {204: Returns("the cookie", media_type=None, headers={"Set-Cookie": "the cookie"})},
    refusals=(Code.MEDIA_COOKIE_NOT_USED,),
    access="user",
)
async def media_cookie(request: Request) -> Response:
    """Give a browser the cookie that shows the pictures of the token's user, until the end of the token."""
    services = services_of(request)
    identity = await identify(request)
    if services.settings.media_access == "link":
        raise Refused(Code.MEDIA_COOKIE_NOT_USED, "this site shows pictures without a cookie")
    await run_in_threadpool(services.authenticator.confirm, identity)
    left_s = identity.expires_at.timestamp() - time.time()
    if left_s < 1:
        raise TokenRejected("the token has expired")
    response = Response(status_code=204)
    set_cookie(response, services.settings, identity, left_s)
    return response
