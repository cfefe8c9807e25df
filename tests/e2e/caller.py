"""An HTTP client to be watched: waits for a line on standard input, asks, and stays until the input ends.

python caller.py PORT PREFIX
"""

from __future__ import annotations

import sys
from http.client import HTTPConnection


def main(port: int, prefix: str) -> None:
    sys.stdin.readline()
    connection = HTTPConnection("127.0.0.1", port)
    for method, path, body in (("GET", "plain?a=1", None), ("POST", "chunked", b"some body"), ("HEAD", "head", None)):
        connection.request(method, f"/{prefix}/{path}", body)
        connection.getresponse().read()
    connection.request("GET", f"/{prefix}/500")
    connection.getresponse().read()
    connection.close()
    sys.stdout.write("done\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
