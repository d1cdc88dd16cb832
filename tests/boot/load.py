"""Load for the time of a block: threads that ask the proxy, and how often it did not answer well."""

import http.client
import threading
import time
from dataclasses import dataclass, field

TIMEOUT = 20.0
# So many failures are told; the number is what counts.
TOLD = 5


@dataclass
class Load:
    """`with Load("docs.localhost") as load: …`: afterwards `load.sent` and `load.failures`."""

    host: str
    wanted: str = ""
    port: int = 80
    threads: int = 4
    # Each request on a connection of its own, or all of a thread on one for as long as it is kept.
    keeps: bool = False
    pause: float = 0.005
    sent: int = 0
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self):
        for _ in range(self.threads):
            thread = threading.Thread(target=self._ask_on, daemon=True)
            thread.start()
            self._running.append(thread)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._running:
            thread.join(TIMEOUT + 5)

    def told(self) -> str:
        return f"{len(self.failures)} of {self.sent} failed: {'; '.join(self.failures[:TOLD])}"

    def _ask_on(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        while not self._stop.is_set():
            start = time.monotonic()
            problem = self._ask(connection)
            took = time.monotonic() - start
            with self._lock:
                self.sent += 1
                self.slowest = max(self.slowest, took)
                if problem:
                    self.failures.append(problem)
            time.sleep(self.pause)
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection) -> str | None:
        """Connects again where the last answer has ended the connection."""
        wish = "keep-alive" if self.keeps else "close"
        try:
            connection.request("GET", "/", headers={"Host": self.host, "Connection": wish})
            answer = connection.getresponse()
            body = answer.read().decode(errors="replace")
            if answer.status != 200:
                return f"status {answer.status}"
            if self.wanted not in body:
                return f"answered {body[:60]!r}"
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return repr(error)
        return None
