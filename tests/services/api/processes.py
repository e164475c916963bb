"""Parts of a fleet as processes: a controller, a gateway, and workers without models."""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from tests.conftest import ROOT
from tests.services.api.gateway import CHAT, Reply, connected

CONTROLLER = ("llmctl", "serve", "controller", "--port", "0", "--interval", "0.5")
GATEWAY = ("llmctl", "serve", "api", "--port", "0")


@dataclass
class Part:
    """A process of the fleet."""

    process: asyncio.subprocess.Process
    port: int

    async def post(self, **body: object) -> Reply:
        async with connected(self.port) as wire:
            return await wire.post(CHAT, **{"model": "fake", "stream": True} | body)

    async def get(self, path: str, *headers: str) -> Reply:
        async with connected(self.port) as wire:
            return await wire.get(path, *headers)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def end(self) -> int:
        self.process.terminate()
        return await self.process.wait()


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[Part]:
    """A process that tells its port in the first line that it writes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode()
        found = re.search(r"(\d+)(/v1)?(,|$)", line.strip())
        assert found is not None, line + (await process.stdout.read()).decode()
        yield Part(process, int(found[1]))
    finally:
        if process.returncode is None:
            process.kill()
        # Read to its end, or the pipe's transport outlives the loop.
        await process.communicate()


async def together(stack: AsyncExitStack, commands: Sequence[Sequence[str]]) -> list[Part]:
    """All of `commands`, started at the same time."""
    entering = [asyncio.create_task(stack.enter_async_context(started(*command))) for command in commands]
    return list(await asyncio.gather(*entering))


@dataclass
class Fleet:
    """A controller, a gateway and two workers."""

    controller: Part
    gateway: Part
    workers: list[Part]

    async def until_known(self, count: int, limit_s: float = 10.0) -> float:
        """Wait until the gateway knows so many workers; how long that took."""
        begun = time.monotonic()
        async with asyncio.timeout(limit_s):
            while await self.num_known() != count:
                await asyncio.sleep(0.05)
        return time.monotonic() - begun

    async def num_known(self) -> int:
        page = (await self.gateway.get("/metrics")).body.decode()
        found = re.search(r"^llmctl_gateway_workers (\S+)$", page, re.MULTILINE)
        assert found is not None
        return int(float(found[1]))


def worker_command(controller: Part, rate: float = 50.0) -> tuple[str, ...]:
    """A worker that reports to `controller`."""
    url = f"http://127.0.0.1:{controller.port}"
    return ("tests.services.fake_worker", "--controller", url, "--rate", str(rate), "--interval", "0.2")


@asynccontextmanager
async def fleet(*, num_workers: int = 2, rate: float = 50.0) -> AsyncIterator[Fleet]:
    """All parts, once the gateway knows the workers."""
    async with AsyncExitStack() as stack:
        (controller,) = await together(stack, [CONTROLLER])
        gateway = (*GATEWAY, "--controller", f"127.0.0.1:{controller.port}")
        parts = await together(stack, [gateway, *[worker_command(controller, rate)] * num_workers])
        made = Fleet(controller, parts[0], parts[1:])
        await made.until_known(num_workers)
        yield made
