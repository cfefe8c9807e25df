"""TLS for clients: one place that turns three files into a context, or into an error that names the bad one."""

from __future__ import annotations

import ssl
from pathlib import Path

from ebbflow.errors import ConfigError


def client_context(section: str, ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Context that verifies the server against `ca` (the system's authorities when None).

    Args:
        section: where the settings stand, for the error message: "kafka", "otlp".
        ca: PEM bundle.
        certificate: PEM certificate chain to present (mutual TLS).
        key: its PEM key; None when it stands in the certificate's file.

    Raises:
        ConfigError: a file cannot be read, is not PEM, or the key does not fit the certificate.
    """
    if key is not None and certificate is None:
        raise ConfigError(f"[{section}] has a client key without a certificate", hint="set both, or neither")
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise _unusable(section, f"CA bundle {ca}", error) from None
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            raise _unusable(section, f"client certificate {certificate} with key {key}", error) from None
    return context


def read_pem(section: str, path: Path | None) -> bytes | None:
    """A PEM file's bytes, for libraries that take no context.

    Raises:
        ConfigError: the file cannot be read.
    """
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise _unusable(section, str(path), error) from None


def _unusable(section: str, what: str, error: Exception) -> ConfigError:
    return ConfigError(f"[{section}] {what}: {error}", hint=f"name readable PEM files in [{section}]")
