"""A Django site with Channels: a group through the channel layer, a consumer in threads, allowed origins."""

import logging
from typing import Any, Final

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

LOG: Final = logging.getLogger("shop")

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "shop.example"],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    DEBUG=False,
    LOGGING_CONFIG=None,
    ROOT_URLCONF=__name__,
    SECRET_KEY="tests",
)
django.setup(set_prefix=False)
http = get_asgi_application()

# They read Django's settings.
from channels.generic.websocket import AsyncJsonWebsocketConsumer, WebsocketConsumer  # noqa: E402
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from channels.security.websocket import AllowedHostsOriginValidator  # noqa: E402


def hello(_request: HttpRequest) -> HttpResponse:
    return HttpResponse("hello")


class Room(AsyncJsonWebsocketConsumer):  # type: ignore[misc] # it has no types
    """Passes on what one says to all of the group."""

    async def connect(self) -> None:
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept("chat" if "chat" in self.scope["subprotocols"] else None)

    async def receive_json(self, content: Any, **_: Any) -> None:
        if content == "close":
            await self.close(code=4003, reason="asked for")
        else:
            await self.channel_layer.group_send(self.room, {"type": "pass.on", "content": content})

    async def pass_on(self, event: dict[str, Any]) -> None:
        await self.send_json(event["content"])

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.room, self.channel_name)
        LOG.warning("gone", extra={"path": self.scope["path"], "close_code": code})


class Threaded(WebsocketConsumer):  # type: ignore[misc]
    """Runs in threads."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data, bytes_data=bytes_data)


class Closed(WebsocketConsumer):  # type: ignore[misc]
    """Lets nobody in."""

    def connect(self) -> None:
        self.close()


urlpatterns = [path("", hello)]
app = ProtocolTypeRouter(
    {
        "http": http,
        "websocket": AllowedHostsOriginValidator(
            URLRouter(
                [
                    path("rooms/<str:room>", Room.as_asgi()),
                    path("threaded", Threaded.as_asgi()),
                    path("closed", Closed.as_asgi()),
                ]
            )
        ),
    }
)
