"""Daemons that are restarted, killed and hang."""

import signal
import time

from installed import file, get, journal, kill, main_pid, message_id, run, say, show, state, temps, wait
from load import Load

PROXY = "temps-proxy.service"
DEPLOYD = "temps-deployd.service"
RESTARTS = 15


def restarts_of_the_proxy_lose_no_request():
    with Load("docs.localhost", wanted="second") as load:
        for _ in range(RESTARTS):
            run("systemctl", "restart", PROXY)
            time.sleep(0.3)
    say(f"{RESTARTS} restarts, {load.sent} requests, {len(load.failures)} failed, slowest {load.slowest:.2f} s")
    assert load.sent > 100 and not load.failures, load.told()


def a_killed_proxy_serves_again_at_once():
    before = main_pid(PROXY)
    kill(before, signal.SIGKILL)
    # The socket stays open: the request waits for the next process.
    assert get("docs.localhost") == (200, "second")
    assert main_pid(PROXY) not in (0, before)


def a_killed_deployd_answers_again_and_knows_what_it_knew():
    apps = temps("app", "list")
    before = main_pid(DEPLOYD)
    kill(before, signal.SIGKILL)
    assert temps("app", "list") == apps
    assert main_pid(DEPLOYD) not in (0, before)


def a_proxy_that_hangs_is_replaced():
    with file("/run/systemd/system/temps-proxy.service.d/soon.conf", "[Service]\nWatchdogSec=2s\n"):
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", PROXY)
        hanging = main_pid(PROXY)
        kill(hanging, signal.SIGSTOP)
        assert get("docs.localhost") == (200, "second")
        assert main_pid(PROXY) not in (0, hanging)
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", PROXY)


def one_that_crashes_for_ever_is_given_up_and_said_to_have_failed():
    crashing = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -SEGV $$$$'\nRestartSec=100ms\n"
    with file("/run/systemd/system/temps-deployd.service.d/crashing.conf", crashing):
        run("systemctl", "daemon-reload")
        run("systemctl", "restart", DEPLOYD, fails=True)
        wait("it is given up", lambda: show(DEPLOYD, "Result") == "start-limit-hit" or state(DEPLOYD) == "failed")
        wait("it is said", lambda: journal(f"MESSAGE_ID={message_id('@TEMPS_UNIT@ failed')}", f"TEMPS_UNIT={DEPLOYD}"))
        entry = journal(f"MESSAGE_ID={message_id('@TEMPS_UNIT@ failed')}", f"TEMPS_UNIT={DEPLOYD}")[-1]
        say(entry["MESSAGE"])
        assert entry["PRIORITY"] == "3" and entry["SYSLOG_IDENTIFIER"] == "temps-failure", entry
        assert get("docs.localhost") == (200, "second")
    run("systemctl", "daemon-reload")


def the_next_reconcile_brings_it_back():
    run("systemctl", "reset-failed", DEPLOYD)
    run("systemctl", "start", "temps-reconcile.service")
    assert show("temps-reconcile.service", "Result") == "success"
    assert main_pid(DEPLOYD) != 0
