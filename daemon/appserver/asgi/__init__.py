"""Events to application and back: ASGI 3, whatever the HTTP version. No socket and no protocol library in here."""
