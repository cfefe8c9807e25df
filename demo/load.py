"""A gentle load for the demo: about 20 requests a second over three kept-alive connections.

Usage: load.py URL

Some requests carry secrets, made up and always the same, so that anyone can look for them in Kafka: they are not there.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import time
from collections.abc import Iterator
from threading import Thread
from urllib.parse import urlsplit

CONNECTIONS = 3
RATE_PER_S = 20.0
TIMEOUT_S = 5.0
RETRY_S = 0.5
SECRETS = ("demo-password", "demo-bearer-token", "demo-api-key", "demo-query-token")
Request = tuple[str, str, str | None, dict[str, str]]

_LOGIN = json.dumps({"user": "ada", "password": SECRETS[0]})
_ORDER = json.dumps({"item": 7, "count": 2})
_JSON = {"Content-Type": "application/json"}
_BEARER = {"Authorization": f"Bearer {SECRETS[1]}", "X-Api-Key": SECRETS[2]}


def requests(chance: random.Random) -> Iterator[Request]:
    """Method, target, body, headers; for ever."""
    kinds: list[tuple[int, Request]] = [
        (10, ("GET", "/items/{n}", None, {})),
        (3, ("GET", "/items/{n}?token=" + SECRETS[3], None, _BEARER)),
        (2, ("POST", "/orders", _ORDER, _JSON | _BEARER)),
        (1, ("POST", "/login", _LOGIN, _JSON)),
        (1, ("GET", "/report", None, {})),
        (1, ("GET", "/export", None, {})),
        (1, ("GET", "/checkout", None, {})),
        (1, ("GET", "/nowhere", None, {})),
    ]
    weights = [weight for weight, _ in kinds]
    while True:
        ((_, (method, target, body, headers)),) = chance.choices(kinds, weights)
        yield method, target.replace("{n}", str(chance.randrange(1, 1000))), body, headers


def keep_asking(host: str, port: int, seed: int) -> None:
    """One client; connects again when the connection is lost."""
    chance = random.Random(seed)  # noqa: S311 - a load, no secret
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    for method, target, body, headers in requests(chance):
        try:
            connection.request(method, target, body, headers)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            connection.close()
            time.sleep(RETRY_S)
        time.sleep(chance.uniform(0, 2 * CONNECTIONS / RATE_PER_S))


def main() -> None:
    address = urlsplit(sys.argv[1])
    arguments = [(address.hostname, address.port, seed) for seed in range(CONNECTIONS)]
    clients = [Thread(target=keep_asking, args=each, daemon=True) for each in arguments]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


if __name__ == "__main__":
    main()
