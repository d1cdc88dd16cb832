"""What administrators find in the journal."""

from pathlib import Path

from installed import journal, message_id, run


def a_release_is_found_by_its_message_id_with_its_fields():
    entries = journal(f"MESSAGE_ID={message_id('@TEMPS_APP@ has a new release')}", "TEMPS_APP=docs")
    assert entries, "no entry"
    entry = entries[-1]
    assert entry["TEMPS_RELEASE"].startswith("rel_"), entry
    wanted = {
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "temps-deployd",
        "_SYSTEMD_UNIT": "temps-deployd.service",
        "_SYSTEMD_SLICE": "temps-daemons.slice",
        "_UID": "0",
    }
    assert {name: entry.get(name) for name in wanted} == wanted


def its_explanation_is_in_the_catalog():
    number = message_id("@TEMPS_APP@ has a new release")
    said = run("journalctl", "--boot", "--no-pager", "--catalog", f"MESSAGE_ID={number}")
    assert "Subject: docs has a new release" in said, said
    assert "of docs passed its health check and serves" in said, said


def every_entry_of_the_catalog_was_accepted():
    listed = run("journalctl", "--list-catalog")
    text = Path("/usr/lib/systemd/catalog/temps.catalog").read_text()
    for line in text.splitlines():
        if line.startswith("-- "):
            assert line.removeprefix("-- ") in listed, line


def the_proxy_says_when_it_serves():
    entries = journal(f"MESSAGE_ID={message_id('The proxy serves')}")
    assert entries and all(entry["_SYSTEMD_UNIT"] == "temps-proxy.service" for entry in entries)
    assert entries[0]["SYSLOG_IDENTIFIER"] == "temps-proxy"


def nothing_was_denied_by_a_sandbox():
    said = run("journalctl", "--boot", "--no-pager", "--output=cat", "--unit=temps*")
    for line in said.splitlines():
        assert "Operation not permitted" not in line and "SECCOMP" not in line, line
