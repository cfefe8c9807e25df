import asyncio
from collections.abc import Iterator

import httpx
import pytest
import structlog
from fastapi import FastAPI

from ebbflow.config import StoreConfig
from ebbflow.store.database import Database
from ebbflow.store.server import Store, create_app


class InProcess(httpx.BaseTransport):
    """Calls a web application without a network."""

    def __init__(self, app: FastAPI) -> None:
        self._transport = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._answer(request))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self._transport.handle_async_request(request)
        return httpx.Response(response.status_code, headers=response.headers, content=await response.aread())


@pytest.fixture
def config(tmp_path) -> StoreConfig:
    return StoreConfig(path=tmp_path / "store.duckdb")


@pytest.fixture
def database(config) -> Iterator[Database]:
    opened = Database(config.path)
    yield opened
    opened.close()


@pytest.fixture
def store(config) -> Iterator[Store]:
    """The parts of a running store; it takes bodies up to 64 KiB."""
    store = Store(Database(config.path), config, structlog.get_logger(), max_body_bytes=1 << 16)
    store.writer.start()
    yield store
    store.close()


@pytest.fixture
def client(store) -> Iterator[httpx.Client]:
    """A running store's HTTP interface."""
    with httpx.Client(transport=InProcess(create_app(store)), base_url="http://store") as client:
        yield client
