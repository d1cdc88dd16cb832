"""Who may do what, with real users."""

from pathlib import Path

from installed import temps, temps_json

DEPLOYD = Path("/run/temps/deployd.sock")


def a_member_of_the_operators_group_operates():
    assert "docs" in temps("app", "list", user="ada")
    temps("status", user="ada")
    temps("env", "set", "docs", "A=1", user="ada")


def a_foreign_user_is_refused_and_told_whom_to_ask():
    for arguments in (["app", "list"], ["status"], ["deploy", "x", "--static", "/srv/tests"]):
        said = temps(*arguments, user="bob", fails=True)
        assert "Permission denied" in said, said
    assert "temps-admin" in temps("app", "list", user="bob", fails=True)
    # What runs is not called down.
    said = temps("status", user="bob", fails=True)
    assert said.count("unknown (permission denied)") == 2 and "down" not in said, said


def the_daemon_itself_refuses_when_the_socket_is_open_by_mistake():
    mode = DEPLOYD.stat().st_mode
    DEPLOYD.chmod(0o666)
    try:
        said = temps("app", "list", user="bob", fails=True)
        assert "may not call this" in said and "temps-admin" in said, said
    finally:
        DEPLOYD.chmod(mode & 0o777)


def the_proxys_user_may_report_and_nothing_else():
    said = temps("app", "list", user="temps-proxy", fails=True)
    assert "temps-proxy may not do this" in said, said


def without_an_engine_the_doctor_says_what_to_do_and_finds_nothing_wrong():
    checks = {check["name"]: check for check in temps_json("doctor")}
    docker = checks["docker"]
    assert docker["level"].lower() == "warning", docker
    assert "install Docker" in docker["hint"], docker
    wrong = [check for check in checks.values() if check["level"].lower() == "failed"]
    assert not wrong, wrong
