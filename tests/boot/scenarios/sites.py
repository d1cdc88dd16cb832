"""A static site, served by the sandboxed proxy on the public ports."""

import http.client
import socket
import ssl
from pathlib import Path

from installed import deploy_site, get, run, temps


def a_site_is_served_on_port_80():
    deploy_site("docs", "first")
    for address in ("127.0.0.1", "::1"):
        assert get("docs.localhost", address=address) == (200, "first"), address


def and_on_port_443():
    context = ssl.create_default_context(cadata=Path("/var/lib/temps/proxy/local-ca.pem").read_text())
    plain = socket.create_connection(("127.0.0.1", 443), timeout=10)
    with context.wrap_socket(plain, server_hostname="docs.localhost") as secured:
        secured.sendall(b"GET / HTTP/1.1\r\nHost: docs.localhost\r\nConnection: close\r\n\r\n")
        answer = http.client.HTTPResponse(secured)
        answer.begin()
        assert (answer.status, answer.read()) == (200, b"first")


def the_next_release_replaces_it():
    deploy_site("docs", "second")
    assert get("docs.localhost") == (200, "second")
    assert "docs" in temps("app", "list")


def nothing_else_of_the_state_can_be_read_by_others():
    for path in ("/var/lib/temps/deployd", "/var/lib/temps/deployd/releases", "/var/lib/temps/proxy"):
        run("setpriv", "--reuid=bob", "--regid=bob", "--init-groups", "ls", path, fails=True)
    private = []
    for path in Path("/var/lib/temps/deployd").rglob("*"):
        if "releases" not in path.parts and path.lstat().st_mode & 0o077:
            private.append(f"{path} {path.lstat().st_mode & 0o777:o}")
    assert not private, private
