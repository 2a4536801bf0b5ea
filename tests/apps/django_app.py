"""A Django site in one file, over ASGI and over WSGI."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

LOG: Final = logging.getLogger("shop")

settings.configure(
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    LOGGING_CONFIG=None,
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="tests",
    SECURE_PROXY_SSL_HEADER=None,
)
django.setup(set_prefix=False)


def show(request: HttpRequest, name: str) -> Any:
    """Runs in a thread, as views that are not async do."""
    told = {"name": name, "query": request.GET.getlist("q"), "path": request.path, "secure": request.is_secure()}
    return JsonResponse(told | {"url": request.build_absolute_uri(), "client": request.META.get("REMOTE_ADDR")})


async def take(request: HttpRequest) -> Any:
    files = {key: [file.name, file.size] for key, file in request.FILES.items()}
    return JsonResponse({"form": request.POST.dict(), "files": files})


async def stream(_request: HttpRequest) -> Any:
    async def produce() -> AsyncIterator[bytes]:
        for number in range(5):
            yield b"part %d\n" % number
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(produce(), content_type="text/plain")


async def endless(_request: HttpRequest) -> Any:
    """Streams until the client has gone."""

    async def produce() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more\n"
                await asyncio.sleep(0.01)
        finally:
            LOG.warning("client gone")

    return StreamingHttpResponse(produce())


async def cookies(request: HttpRequest) -> Any:
    response = JsonResponse(dict(request.COOKIES))
    response.set_cookie("one", "1")
    response.set_cookie("two", "2")
    return response


def missing(_request: HttpRequest) -> Any:
    raise Http404("no such basket")


def fail(_request: HttpRequest) -> Any:
    raise RuntimeError("no database")


def nothing(_request: HttpRequest) -> Any:
    return HttpResponse(status=204)


urlpatterns = [
    path("show/<str:name>", show),
    path("take", take),
    path("stream", stream),
    path("endless", endless),
    path("cookies", cookies),
    path("missing", missing),
    path("fail", fail),
    path("nothing", nothing),
]

app = get_asgi_application()
wsgi = get_wsgi_application()
