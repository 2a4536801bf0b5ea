"""The certificates of a running server: watched, renewed in place, and told when they are about to expire.

    files change ──look──▶ load ──good──▶ new connections get the new ones; those that are open keep theirs
                             │
                             └──bad──▶ look again a second later ──still bad──▶ the old ones go on, and an event says so

A new certificate that has expired, or is not good yet, is bad as well, as long as the one in whose place it comes is
good.

The second look is for tools that replace the certificate and its key one after the other, as certbot does: in between
they do not fit. The files are read in a thread, because a folder on a network may stand still and a thousand keys take
a second. It is a thread of our own: those of the loop are the application's, which may keep all of them.
"""

import os
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any, Final, NamedTuple

from appserver.errors import OperatorError
from appserver.net.certificates import Identity, find_files, find_folders
from appserver.net.tls import Context, Offer, load
from appserver.settings import Settings
from appserver.system.credentials import find_file
from appserver.telemetry.log import Log
from appserver.telemetry.text import show_expiry, show_time

DAY: Final = 86400.0
EXPIRIES: Final = 100
"""Of so many certificates the expiry goes into the metrics, and through a worker's report, which has a limit."""

SOON_SECONDS: Final = 14 * DAY
"""So long before a certificate expires it is told, once a day. Tools renew a month ahead: something is wrong then."""


class _Seen(NamedTuple):
    """What a look at the files found."""

    paths: tuple[str, ...]
    """What to look at from now on."""
    signature: Hashable
    """Of these paths."""
    offer: Offer | None = None
    error: str | None = None


class Certificates:
    """The certificates that a process serves with.

    Args:
        settings: Where they stand.
        variants: What contexts are needed: with HTTP/2 (True), without.
        log: Where events go.
        clock: Seconds since the epoch.

    Raises:
        OperatorError: The first ones cannot be served with.
    """

    def __init__(
        self, settings: Settings, variants: Collection[bool], log: Log, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings, self._variants, self._log, self._clock = settings, frozenset(variants), log, clock
        self._paths = find_paths(settings)
        self._signature = _sign(self._paths)
        self._offer = load(settings, self._variants)
        self._suspect: Hashable = None
        self._again = inf  # when files that have been refused for their time are to be read again
        self._thread = ThreadPoolExecutor(1, "appserver-certificates")
        self._look: Future[None] | None = None
        self._told: dict[str, tuple[bool, float]] = {}  # by certificate: whether it had expired, and when that was told
        self.failure: str | None = None
        """Why the newest files are not served with; None while they are."""
        self._tell_begin()

    def context(self, *, http2: bool) -> Context:
        """What a new connection begins with."""
        return self._offer.contexts[http2]

    # Facts

    @property
    def identities(self) -> tuple[Identity, ...]:
        """What is served with; the first one is the default."""
        return self._offer.identities

    @property
    def nearest(self) -> Identity:
        """The certificate that expires first."""
        return min(self.identities, key=lambda identity: identity.facts.ends)

    @property
    def status(self) -> str:
        """A phrase for the status line."""
        first = self.nearest.facts
        more = "; the new files cannot be served with" if self.failure else ""
        return show_expiry(first.label, first.ends, self._clock()) + more

    @property
    def expiries(self) -> dict[str, float]:
        """When the certificates that expire first do, in seconds since 1970, by the first name of each."""
        facts = sorted((identity.facts for identity in self.identities), key=lambda one: one.ends)
        # Of two for one name, which an RSA and an ECDSA key have, the nearer one.
        return {one.label: one.ends for one in reversed(facts[:EXPIRIES])}

    def report(self) -> dict[str, Any]:
        """What the control socket tells."""
        return {
            "certificates": [
                f"{', '.join(identity.facts.hosts) or identity.facts.subject}: {show_time(identity.facts.ends)}"
                for identity in self.identities
            ],
            "certificate_expires": show_time(self.nearest.facts.ends),
            "certificate_failure": self.failure,
        }

    # Renewal

    def tick(self, loop: AbstractEventLoop) -> None:
        """Look at the files in a thread, unless the last look is still on its way; to be called once a second."""
        self._tell_expiry()
        if self._look is None or self._look.done():
            self._look = loop.create_task(self._renew(loop))

    async def _renew(self, loop: AbstractEventLoop) -> None:
        seen = await loop.run_in_executor(self._thread, self._examine)
        if seen is not None:
            self._take(seen, final=False)

    def reload(self) -> None:
        """Read the files now, changed or not; what is wrong is told at once."""
        self._take(self._read(), final=True)

    def _examine(self) -> _Seen | None:
        """Look whether a file has changed, or the time has come for one, and read them all if so."""
        unchanged = _sign(self._paths) == self._signature and self._clock() < self._again
        return None if unchanged else self._read()

    def _read(self) -> _Seen:
        paths = self._paths
        try:
            paths = find_paths(self._settings)
            signature = _sign(paths)
            offer = load(self._settings, self._variants)
        except OperatorError as error:
            return _Seen(paths, _sign(paths), error=str(error))
        except Exception as error:  # noqa: BLE001 - whatever is in the files, the next ones are to be looked at
            return _Seen(paths, _sign(paths), error=f"{type(error).__name__}: {error}")
        # Changed while it was read: it may be half old and half new, so it is looked at again.
        return _Seen(paths, signature, offer if _sign(paths) == signature else None)

    def _take(self, seen: _Seen, *, final: bool) -> None:
        error, again = (seen.error, inf) if seen.offer is None else self._find_untimely(seen.offer)
        if error is not None:
            if final or seen.signature == self._suspect:
                self._paths, self._signature, self._again, self.failure = seen.paths, seen.signature, again, error
                self._log.error(
                    f"The certificates are not renewed: {error}; those from before are still served",
                    code="certificate_failed",
                )
            self._suspect = seen.signature
        elif seen.offer is not None:
            self._paths, self._signature, self._again, self.failure = seen.paths, seen.signature, inf, None
            self._offer = seen.offer
            self._told.clear()
            first = self.nearest.facts
            self._log.info(
                f"New certificates are served: {', '.join(self._labels())}",
                code="certificate_loaded",
                names=", ".join(name for identity in self.identities for name in identity.facts.names),
                expires=show_time(first.ends),
            )
            self._tell_begin()

    def _find_untimely(self, offer: Offer) -> tuple[str | None, float]:
        """Why certificates are no good at this time, and when to look again; none that replaces nothing good is."""
        now, kept = self._clock(), {identity.pem for identity in offer.identities}
        good = [one for one in self.identities if one.facts.begins <= now < one.facts.ends and one.pem not in kept]
        for new in offer.identities:
            facts = new.facts
            if facts.begins <= now < facts.ends:
                continue
            old = [one for one in good if one.files == new.files or set(one.facts.hosts) & set(facts.hosts)]
            if old:
                when = f"has expired: {show_time(facts.ends)}"
                if now < facts.begins:
                    when = f"is not good before {show_time(facts.begins)}"
                turn = min(one.facts.ends for one in old)  # from then on a bad one is as good as another
                again = min(turn, facts.begins) if now < facts.begins else turn
                return f"{new.files.certificate}: the certificate of {facts.label} {when}", again
        return None, inf

    def _labels(self) -> Iterator[str]:
        for identity in self.identities:
            yield f"{identity.facts.label} (until {show_time(identity.facts.ends)[:10]})"

    # Beginning and end

    def _tell_begin(self) -> None:
        for identity in self.identities:
            if identity.facts.begins > self._clock():
                self._log.warning(
                    f"The certificate of {identity.facts.label} is not good before {show_time(identity.facts.begins)}:"
                    " until then clients refuse it, unless this host's clock is slow",
                    certificate=os.fspath(identity.files.certificate),
                )

    def _tell_expiry(self) -> None:
        now = self._clock()
        for identity in self.identities:
            facts = identity.facts
            if facts.ends - now > SOON_SECONDS:
                continue
            expired = facts.ends <= now
            told = self._told.get(identity.pem)
            if told is not None and told[0] == expired and (expired or now - told[1] < DAY):
                continue
            self._told[identity.pem] = expired, now
            write = self._log.error if expired else self._log.warning
            days = int((facts.ends - now) // DAY)
            when = "has expired" if expired else f"expires in {days} day{'' if days == 1 else 's'}"
            write(
                f"The certificate of {facts.label} {when}: {show_time(facts.ends)}",
                code="certificate_expires",
                certificate=os.fspath(identity.files.certificate),
                expires=show_time(facts.ends),
            )


def find_paths(settings: Settings) -> tuple[str, ...]:
    """What to look at: the files, and the folders where more of them can appear.

    Raises:
        OperatorError: See `net.certificates.find_files`.
    """
    paths = [path for pair in find_files(settings) for path in (pair.certificate, pair.key)]
    if settings.tls_ca is not None:
        paths.append(find_file(settings.tls_ca))
    return tuple(os.fspath(path) for path in (*paths, *find_folders(settings)))


def _sign(paths: Iterable[str]) -> Hashable:
    """What changes when a file does: symbolic links are followed, as certbot and Kubernetes use them."""
    return tuple(_sign_one(path) for path in paths)


def _sign_one(path: str) -> Hashable:
    try:
        status = os.stat(path)  # noqa: PTH116 - half the time of Path.stat(), every second, for what may be thousands
    except OSError as error:
        return error.errno
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
