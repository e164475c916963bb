"""How many frames a second pass through the gateway, and what they cost it.

    python -m tests.services.api.load --clients 200 --workers 8 --rate 20 --seconds 5

Workers, gateway and clients are processes of their own; the clients are raw sockets that count event ends.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import cast

import psutil
import uvloop

from tests.services.api.processes import fleet

BODY = {"model": "fake", "stream": True, "messages": [{"role": "user", "content": "Say something."}]}


@dataclass(frozen=True)
class Load:
    """What was measured."""

    frames_per_s: float
    requests_per_s: float
    gateway_cpu_s_per_1000: float
    """Seconds of the gateway's processor per 1,000 frames."""
    gateway_share: float
    """Of one processor."""
    reads_per_frame: float
    """Of the clients: below 1 where frames come together."""


class Client(asyncio.Protocol):
    """Asks again as soon as its answer is over."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.num_frames = self.num_reads = self.num_answers = 0
        self._last = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.num_reads += 1
        self.num_frames += data.count(b"\n\n")
        if data.endswith(b"0\r\n\r\n"):
            self.num_answers += 1
            self.transport.write(self.request)


async def drive(port: int, pid: int, *, num_clients: int, seconds: float, num_tokens: int) -> Load:
    """Load the gateway at `port` and measure once all clients are on their way."""
    body = json.dumps(BODY | {"max_tokens": num_tokens}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(num_clients):
        _, client = await loop.create_connection(lambda: Client(request), "127.0.0.1", port)
        clients.append(client)
    await asyncio.sleep(1.0)

    def now() -> tuple[float, float, int, int, int]:
        used = psutil.Process(pid).cpu_times()
        sums = (
            sum(getattr(each, name) for each in clients)
            for name in ("num_frames", "num_reads", "num_answers")
        )
        frames, reads, answers = sums
        return time.perf_counter(), used.user + used.system, frames, reads, answers

    before = now()
    await asyncio.sleep(seconds)
    wall, cpu, frames, reads, answers = (after - early for after, early in zip(now(), before, strict=True))
    for client in clients:
        client.transport.abort()
    return Load(
        frames_per_s=frames / wall,
        requests_per_s=answers / wall,
        gateway_cpu_s_per_1000=cpu / frames * 1000,
        gateway_share=cpu / wall,
        reads_per_frame=reads / frames,
    )


def measure(*, num_clients: int, num_workers: int, rate: float, seconds: float, num_tokens: int = 64) -> Load:
    """Start all processes and measure once."""

    async def work() -> Load:
        async with fleet(num_workers=num_workers, rate=rate) as parts:
            gateway = parts.gateway
            return await drive(
                gateway.port,
                gateway.process.pid,
                num_clients=num_clients,
                seconds=seconds,
                num_tokens=num_tokens,
            )

    return uvloop.run(work())


def main() -> None:
    """Print what was measured, once a round."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    flags = parser.parse_args()
    for _ in range(flags.rounds):
        load = measure(
            num_clients=flags.clients,
            num_workers=flags.workers,
            rate=flags.rate,
            seconds=flags.seconds,
            num_tokens=flags.tokens,
        )
        sys.stdout.write(f"{load}\n")


if __name__ == "__main__":
    main()
