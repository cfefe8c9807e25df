import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest


@dataclass(frozen=True)
class Authority:
    """A certificate authority with one server and one client certificate for loopback."""

    directory: Path

    def path(self, name: str) -> Path:
        return self.directory / name

    def server_context(self, *, ask_client: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.path("ca.pem"))
        context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
        context.verify_mode = ssl.CERT_REQUIRED if ask_client else ssl.CERT_NONE
        return context

    def server_credentials(self, *, ask_client: bool = False) -> grpc.ServerCredentials:
        pair = (self.path("server.key").read_bytes(), self.path("server.pem").read_bytes())
        return grpc.ssl_server_credentials([pair], self.path("ca.pem").read_bytes(), ask_client)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def _make_authority(directory: Path) -> Authority:
    directory.mkdir()
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2)
    ca = (directory / "ca.pem", directory / "ca.key")
    _openssl("req", "-x509", *key, "-subj", "/CN=test authority", "-out", ca[0], "-keyout", ca[1])
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        pem, private, request = (directory / f"{name}.{end}" for end in ("pem", "key", "csr"))
        _openssl("req", *key[:-2], "-subj", f"/CN={name}", "-out", request, "-keyout", private)
        signing = ("-CA", ca[0], "-CAkey", ca[1], "-CAcreateserial", "-days", 2, "-extfile", directory / "names")
        _openssl("x509", "-req", "-in", request, "-out", pem, *signing)
    return Authority(directory)


@pytest.fixture(scope="session")
def authority(tmp_path_factory) -> Authority:
    return _make_authority(tmp_path_factory.mktemp("tls") / "good")


@pytest.fixture(scope="session")
def other_authority(tmp_path_factory) -> Authority:
    """Signs nothing that a server here shows."""
    return _make_authority(tmp_path_factory.mktemp("tls") / "other")
