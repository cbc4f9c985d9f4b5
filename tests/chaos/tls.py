"""One server that speaks TLS alone, with an authority of its own, and wants a certificate of its clients."""

from __future__ import annotations

import redis

from chaos.certificates import Certificates
from chaos.servers import DURABLE, Deployment, ServerProcess, binary_of, find_ports


class Tls(Deployment):
    """Redis alone: the bundled Valkey speaks no TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "TLS redis"
        certificates = Certificates(self.folder / "tls")
        (port,) = find_ports(1)
        options = {**DURABLE, **certificates.server_options(port)}
        self.server = ServerProcess(
            binary_of("redis"), self.folder / "data", port, options, certificates.arguments()
        )
        self.servers = [self.server]
        self.url = f"rediss://127.0.0.1:{port}/0?{certificates.query()}"

    def client(self) -> redis.Redis:
        return self.server.client()
