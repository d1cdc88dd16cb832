"""A program at a terminal, and somebody who types."""

import os
import pty
import select
import time

# Nothing here takes longer.
PATIENCE = 30.0
CTRL_C = "\x03"
CTRL_D = "\x04"


class Terminal:
    """Starts a program at a terminal of its own."""

    def __init__(self, *line: str) -> None:
        self._pid, self._end = pty.fork()
        if self._pid == 0:
            os.execvpe(line[0], line, {**os.environ, "TERM": "dumb"})
        self._seen = ""
        self._status: int | None = None

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_) -> None:
        if self._status is None:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
        os.close(self._end)

    def expect(self, text: str) -> str:
        """Waits until it is shown; all that was shown since the last time."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._seen:
            assert self._more(deadline), f"{text!r} is not shown, but {self._seen!r}"
        end = self._seen.index(text) + len(text)
        shown, self._seen = self._seen[:end], self._seen[end:]
        return shown

    def type(self, text: str) -> None:
        """Types a line, or with a control character that alone."""
        os.write(self._end, (text if text in (CTRL_C, CTRL_D) else text + "\n").encode())

    def ends(self) -> tuple[int, str]:
        """Its exit status (negative: the signal that ended it), and all that it still showed."""
        deadline = time.monotonic() + PATIENCE
        while self._more(deadline):
            pass
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status, self._seen

    def _more(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        assert left > 0 and select.select([self._end], [], [], left)[0], f"nothing more after {self._seen!r}"
        try:
            read = os.read(self._end, 65536)
        except OSError:
            # What Linux says when the program was the last one at the terminal.
            return False
        self._seen += read.decode().replace("\r\n", "\n")
        return bool(read)
