"""A path's template: `/users/42/orders/2024-05-01` is `/users/{id}/orders/{date}`.

A witness does not know a server's routes, and `http.route` must be of low cardinality. The rules look at one segment
at a time, in this order, and nothing else, so the same path always gives the same template:

    digits                                   {id}
    a date, 2024-05-01 or 20240501T101500Z   {date}
    a UUID                                   {uuid}
    16 or more hexadecimal digits            {hash}    at least one a digit
    an address with an @                     {email}
    20 or more letters and digits, mixed     {token}   letters of both cases and a digit, or a percent sign
    a word with 4 or more digits in a row    {id}      `order-12345`, `v2` stays
    longer than 64 bytes                     {long}

Behind eight segments comes `*`. The path is cut at its matrix parameters (`;`) and at 2 KiB. What the rules miss are
words: names of users or products. A learned tree must find those.
"""

from __future__ import annotations

import re

MAX_SEGMENTS = 8
_MAX_PATH_BYTES = 2048
# One pass over the whole path; a segment that matches nothing is left as it is.
_VARIABLE = re.compile(
    rb"/(?:"
    rb"(?P<id>[0-9]+)"
    rb"|(?P<date>[0-9]{4}-[0-9]{2}(?:-[0-9]{2}(?:T[0-9:.%AZz+-]*)?)?|[0-9]{8}T[0-9]{4,6}Z?)"
    rb"|(?P<uuid>[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12})"
    rb"|(?P<hash>(?=[A-Fa-f]*[0-9])[0-9A-Fa-f]{16,})"
    rb"|(?P<email>[^/@]{1,64}(?:@|%40)[^/@]{1,64})"
    rb"|(?P<token>(?=[^/]*[0-9%])(?=[^/]*[a-z])(?=[^/]*[A-Z])[^/.]{20,})"
    rb"|(?P<word>[^/]*[0-9]{4,}[^/]*)"
    rb"|(?P<long>[^/]{65,})"
    rb")(?=/|\Z)"
)
_NAMES = {
    "id": b"/{id}", "date": b"/{date}", "uuid": b"/{uuid}", "hash": b"/{hash}", "email": b"/{email}",
    "token": b"/{token}", "word": b"/{id}", "long": b"/{long}",
}  # fmt: skip
# The common cases in two cheap steps: numbers, and words without a digit.
_NUMBER = re.compile(rb"/[0-9]+(?=/|\Z)")
_PLAIN = re.compile(rb"(?:/[A-Za-z_.~{}-]{0,19}){1,8}\Z")


def template(path: bytes) -> bytes:
    """The template of an absolute path; anything else (`*`, an authority) stays as it is."""
    if not path.startswith(b"/"):
        return path
    simple = _NUMBER.sub(b"/{id}", path)
    if _PLAIN.match(simple):
        return simple
    path = path[:_MAX_PATH_BYTES].partition(b";")[0]
    parts = path.split(b"/", MAX_SEGMENTS + 1)
    if len(parts) > MAX_SEGMENTS + 1:
        path = b"/".join(parts[:-1])
    found = _VARIABLE.sub(_name, path)
    return found + b"/*" if len(parts) > MAX_SEGMENTS + 1 else found


def _name(match: re.Match[bytes]) -> bytes:
    return _NAMES[match.lastgroup or "long"]
