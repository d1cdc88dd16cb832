"""deployd runs while it is needed, and a call never notices."""

import random
import threading
import time

from installed import file, journal, main_pid, message_id, run, say, show, state, temps, wait_for_state

SERVICE = "temps-deployd.service"
CALLERS = 2
CALLS = 60


def sockets_listen_while_deployd_does_not_run():
    wait_for_state(SERVICE, "inactive")
    listening = run("ss", "--listening", "--unix", "--no-header")
    for name in ("deployd", "deployd-upload"):
        assert f"/run/temps/{name}.sock" in listening, listening


def a_call_starts_it():
    assert main_pid(SERVICE) == 0
    temps("status")
    temps("app", "list")
    assert main_pid(SERVICE) != 0


def it_ends_when_idle():
    wait_for_state(SERVICE, "inactive")
    assert show(SERVICE, "Result") == "success"
    assert show(SERVICE, "NRestarts") == "0"
    assert state("temps-deployd.socket") == "active"


def no_call_is_lost_while_it_comes_and_goes():
    often = "[Unit]\nStartLimitIntervalSec=0\n"
    idle = 'idle = "150ms"\n'
    failures: list[str] = []

    def call():
        for _ in range(CALLS):
            # Around the idle time, so that many calls meet its end.
            time.sleep(random.uniform(0.1, 0.3))
            try:
                temps("app", "list")
            except AssertionError as failure:
                failures.append(str(failure))

    with (
        file("/run/systemd/system/temps-deployd.service.d/often.conf", often),
        file("/etc/temps/deployd.toml.d/60-short.toml", idle),
    ):
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", SERVICE)
        before = _starts()
        callers = [threading.Thread(target=call) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        starts = _starts() - before
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", SERVICE)
    say(f"{CALLERS * CALLS} calls, {starts} starts, {len(failures)} failed")
    assert not failures, failures[0]
    assert starts >= 5, "it did not come and go"


def _starts() -> int:
    return len(journal(f"MESSAGE_ID={message_id('Deployments can be made')}"))
