"""Ends work for a client that has left."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

T = TypeVar("T")


async def left(receive: Receive) -> None:
    """Return when the client has left, or has its whole answer. The body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled as soon as the client leaves.

    Raises `ClientDisconnect` then, when `work` has ended.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left(request.receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        is_done = working.done()
    finally:
        await end(working, leaving)
    if not is_done:
        raise ClientDisconnect
    return working.result()


async def end(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel what is not over, and wait until it is; what it raises stays in it."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
