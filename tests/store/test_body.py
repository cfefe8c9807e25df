import gzip
import random
import zlib

import pytest

from ebbflow.errors import RateLimited, ValidationError
from ebbflow.store.body import Budget, TooLarge, gunzip, read_body


async def chunks(*parts: bytes):
    for part in parts:
        yield part


async def read(*parts: bytes, length: str | None = None, limit: int = 10, budget: int = 100) -> bytes:
    with Budget(budget).share() as share:
        return await read_body(chunks(*parts), length, share, limit)


async def test_read_body_chunks_are_joined():
    assert await read(b"ab", b"", b"cd") == b"abcd"


async def test_read_body_exactly_the_limit_is_taken():
    assert await read(b"x" * 10, length="10") == b"x" * 10


async def test_read_body_announced_too_large_is_refused_unread():
    with pytest.raises(TooLarge, match="has 11 bytes"):
        await read(length="11")


async def test_read_body_found_too_large_is_refused():
    with pytest.raises(TooLarge, match="more than 10"):
        await read(b"x" * 6, b"x" * 5, length="nonsense")


async def test_read_body_beyond_the_budget_of_all_is_refused_for_now():
    budget = Budget(8)
    with budget.share() as other:
        other.take(5)
        with pytest.raises(RateLimited) as error, budget.share() as share:
            await read_body(chunks(b"abcd"), None, share, 10)
        assert error.value.retry_after_s == 1


async def test_read_body_budget_is_given_back():
    budget = Budget(4)
    for _ in range(3):
        with budget.share() as share:
            assert await read_body(chunks(b"abcd"), None, share, 10) == b"abcd"


@pytest.mark.parametrize("plain", [b"", b"abc", random.Random(1).randbytes(5000)])
def test_gunzip_is_inverse_of_gzip(plain):
    assert gunzip(gzip.compress(plain)) == plain


def test_gunzip_members_are_joined():
    assert gunzip(gzip.compress(b"ab") + gzip.compress(b"cd")) == b"abcd"


def test_gunzip_exactly_the_limit_is_taken():
    assert len(gunzip(gzip.compress(bytes(1000)), 1000)) == 1000


def test_gunzip_bomb_is_refused():
    with pytest.raises(TooLarge, match="more than 1000"):
        gunzip(gzip.compress(bytes(1 << 20)), 1000)


def test_gunzip_bomb_in_many_members_is_refused():
    with pytest.raises(TooLarge):
        gunzip(gzip.compress(bytes(400)) * 3, 1000)


@pytest.mark.parametrize(
    "data",
    [b"", b"plain", gzip.compress(b"abc")[:-1], gzip.compress(b"abc") + b"more", zlib.compress(b"abc"), b"\x1f\x8b"],
)
def test_gunzip_what_is_not_whole_gzip_is_refused(data):
    with pytest.raises(ValidationError, match="not gzip"):
        gunzip(data)
