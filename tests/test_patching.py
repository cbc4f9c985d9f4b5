"""Patching late: what a program has imported by name before, and goes on using."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from chaos.certificates import Certificates
from conftest import DEADLINE, HERE

AT_ONCE = 5
CLIENT = """
import socket, ssl, sys
from ssl import SSLContext, TLSVersion

early = ssl.create_default_context(cafile=sys.argv[2])

from pytask.patching import patch_late
patch_late()
import gevent

late = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
assert type(late) is not ssl.SSLContext
late.minimum_version, late.maximum_version = TLSVersion.TLSv1_2, TLSVersion.TLSv1_3
late.options |= ssl.OP_NO_COMPRESSION
late.verify_mode = ssl.CERT_REQUIRED
late.verify_flags |= ssl.VERIFY_X509_STRICT
assert late.minimum_version == TLSVersion.TLSv1_2 and late.options & ssl.OP_NO_COMPRESSION
late.load_verify_locations(sys.argv[2])

def ask(context):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            return wrapped.recv(2)

for context in (early, late):
    asked = [gevent.spawn(ask, context) for _ in range(int(sys.argv[3]))]
    print(*(greenlet.get() for greenlet in asked), flush=True)
"""


@pytest.fixture
def certificates(tmp_path):
    return Certificates(tmp_path)


@pytest.fixture
def port(certificates):
    """A server that answers when so many have connected, and so none that does not let others go on meanwhile."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.path("server.crt"), certificates.path("server.key"))
    gate = threading.Barrier(AT_ONCE)

    def answer(plain):
        with (
            contextlib.suppress(OSError, threading.BrokenBarrierError),
            context.wrap_socket(plain, server_side=True) as wrapped,
        ):
            gate.wait(DEADLINE)
            wrapped.sendall(b"ok")

    def serve():
        with contextlib.suppress(OSError):
            while True:
                plain, _ = listening.accept()
                threading.Thread(target=answer, args=(plain,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)


def test_tls_goes_on_with_what_was_imported_and_made_before(port, certificates):
    command = [sys.executable, "-c", CLIENT, str(port), certificates.path("ca.crt"), str(AT_ONCE)]
    environ = {**os.environ, "PYTHONPATH": str(HERE.parent)}
    told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert told.stdout.splitlines() == [" ".join(["b'ok'"] * AT_ONCE)] * 2, told.stderr
