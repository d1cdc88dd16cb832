"""The load of the main job: requests that start when they are due, each sent once, and filed under the
release that answered."""

import http.client
import select
import threading
import time
from dataclasses import dataclass, field

# As the first sample apps were loaded: 200 requests a second on 20 kept connections, 50 new ones.
KEPT_RATE, KEPT = 200, 20
NEW_RATE, NEW = 50, 20
PATIENCE = 5.0
# So many failures are told; the number is what counts.
TOLD = 5


@dataclass(frozen=True)
class Failure:
    start: float
    end: float
    what: str


@dataclass
class Clients:
    """`with Clients("shop.localhost") as clients: …`; times are those of `time.monotonic`.

    A connection that was closed while nothing was under way on it is opened anew, as every client does;
    what was sent and not answered with 200 within PATIENCE has failed.
    """

    host: str
    port: int = 80
    sent: int = 0
    slowest: float = 0.0
    # The latest that a request was started after it was due: large where this machine was too busy.
    latest: float = 0.0
    failures: list[Failure] = field(default_factory=list)
    # When the requests were started that a release has answered.
    starts: dict[str, list[float]] = field(default_factory=dict)
    took: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self):
        self.took = -time.monotonic()
        for rate, threads, keeps in ((KEPT_RATE, KEPT, True), (NEW_RATE, NEW, False)):
            for number in range(threads):
                arguments = (number / rate, threads / rate, keeps)
                thread = threading.Thread(target=self._ask_on, args=arguments, daemon=True)
                thread.start()
                self._running.append(thread)
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._running:
            thread.join(PATIENCE + 5)
        self.took += time.monotonic()

    def answers_after(self, release: str, moment: float) -> int:
        """How many requests that were started later this release has answered."""
        with self._lock:
            return sum(start > moment for start in self.starts.get(release, []))

    def told(self) -> str:
        """The figures, for people."""
        rate = self.sent / self.took if self.took > 0 else 0
        told = "".join(f"; {failure.what}" for failure in self.failures[:TOLD])
        return (
            f"{self.sent} requests ({rate:.0f} a second), {len(self.failures)} failed, "
            f"slowest {self.slowest:.2f} s, latest start {self.latest:.2f} s{told}"
        )

    def _ask_on(self, offset: float, period: float, keeps: bool) -> None:
        due = time.monotonic() + offset
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        # Late ones are made up for, so that the rate stays.
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            start = time.monotonic()
            release, problem = self._ask(connection, keeps)
            end = time.monotonic()
            with self._lock:
                self.sent += 1
                self.slowest = max(self.slowest, end - start)
                self.latest = max(self.latest, start - due)
                self.starts.setdefault(release, []).append(start)
                if problem:
                    self.failures.append(Failure(start, end, problem))
            due += period
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, keeps: bool) -> tuple[str, str | None]:
        # Readable although nothing was asked: closed.
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
        release = ""
        try:
            wish = "keep-alive" if keeps else "close"
            connection.request("GET", "/", headers={"Host": self.host, "Connection": wish})
            answer = connection.getresponse()
            release = answer.headers.get("X-Release", "")
            body = answer.read()
            if answer.status != 200:
                return release, f"status {answer.status}: {body[:80]!r}"
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return release, repr(error)
        return release, None
