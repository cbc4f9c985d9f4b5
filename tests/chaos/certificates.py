"""Certificates for TLS on loopback: an authority, a server's and a client's, made with openssl in a directory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlencode


class Certificates:
    """Files in a directory: `ca.crt`, `server.crt`, `server.key`, `client.crt`, `client.key`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        program = shutil.which("openssl")
        if program is None:
            raise FileNotFoundError("openssl is not installed: on Debian, apt install openssl")
        self._program = program
        self._make_authority()
        for name in ("server", "client"):
            self._make(name)

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def _run(self, *words: str) -> None:
        subprocess.run([self._program, *words], check=True, capture_output=True, cwd=self.folder)

    def _make_authority(self) -> None:
        self._run(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=chaos authority",
            "-addext", "keyUsage=critical,keyCertSign", "-keyout", "ca.key", "-out", "ca.crt",
        )  # fmt: skip

    def _make(self, name: str) -> None:
        (self.folder / "names.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
        self._run(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr",
        )  # fmt: skip
        self._run(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "2", "-extfile", "names.ext", "-out", f"{name}.crt",
        )  # fmt: skip

    def server_options(self, port: int) -> dict[str, object]:
        """Options of a server that takes TLS connections alone, and asks clients for a certificate."""
        return {
            "port": 0,
            "tls-port": port,
            "tls-cert-file": self.path("server.crt"),
            "tls-key-file": self.path("server.key"),
            "tls-ca-cert-file": self.path("ca.crt"),
            "tls-auth-clients": "yes",
            "tls-replication": "yes",
            "tls-cluster": "yes",
        }

    def arguments(self) -> dict[str, object]:
        """Arguments of a redis-py client."""
        return {
            "ssl": True,
            "ssl_ca_certs": self.path("ca.crt"),
            "ssl_certfile": self.path("client.crt"),
            "ssl_keyfile": self.path("client.key"),
        }

    def query(self) -> str:
        """The same as the end of a URL."""
        return urlencode({name: value for name, value in self.arguments().items() if name != "ssl"})
