"""Clients that ask without a pause worth naming, and tell what became of every request.

    python load.py pids COUNT URL     until COUNT processes have answered; prints their pids and users as JSON
    python load.py until-eof URL      until the end of the input; prints `running` once each client has been answered,
                                      then what was answered and what was lost as JSON

Half of the clients make a connection for each request, the others keep theirs until the server says that it closes.
"""

import http.client
import json
import sys
import threading
from collections import Counter
from contextlib import suppress
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

CLIENTS = 8
PAUSE = 0.005
PATIENCE = 20.0


class Load:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._target = f"{parts.path}?{parts.query}"
        self._lock = threading.Lock()
        self.stop = threading.Event()
        self.running = threading.Barrier(CLIENTS + 1)
        self.answers: Counter[int] = Counter()
        self.users: set[int] = set()
        self.lost: Counter[str] = Counter()

    def run(self, *, keep: bool) -> None:
        """One client."""
        connection: http.client.HTTPConnection | None = None
        begun = False
        while not self.stop.wait(PAUSE):
            if connection is None:
                connection = http.client.HTTPConnection(self._host, self._port, timeout=PATIENCE)
                try:
                    connection.connect()
                except OSError as error:
                    self._lose(f"connecting: {type(error).__name__}")
                    connection = None
                    continue
            keeps = self._ask(connection) and keep
            if not keeps:
                connection.close()
                connection = None
            if not begun:
                begun = True
                with suppress(threading.BrokenBarrierError):
                    self.running.wait(PATIENCE)
        if connection is not None:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        """One request; whether the connection can be used again."""
        response: http.client.HTTPResponse | None = None
        try:
            connection.request("GET", self._target)
            response = connection.getresponse()
            told: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Cut is worse than unanswered: an answer that had begun did not come to its end.
            self._lose(f"{'unanswered' if response is None else 'cut'}: {type(error).__name__}")
            return False
        with self._lock:
            self.answers[told["pid"]] += 1
            self.users.add(told["uid"])
        return not response.will_close

    def _lose(self, how: str) -> None:
        with self._lock:
            self.lost[how] += 1

    def start(self) -> list[threading.Thread]:
        threads = [threading.Thread(target=self.run, kwargs={"keep": number % 2 == 0}) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        return threads


def main(mode: str, *words: str) -> None:
    load = Load(words[-1])
    threads = load.start()
    with suppress(threading.BrokenBarrierError):
        load.running.wait(PATIENCE)
    if mode == "pids":
        end = monotonic() + PATIENCE
        while len(load.answers) < int(words[0]) and monotonic() < end:
            load.stop.wait(PAUSE)
    else:
        sys.stdout.write("running\n")
        sys.stdout.flush()
        sys.stdin.read()
    load.stop.set()
    for thread in threads:
        thread.join()
    told = {"pids": sorted(load.answers), "users": sorted(load.users), "answered": load.answers.total()}
    sys.stdout.write(json.dumps(told | {"lost": load.lost}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
