"""`llmctl serve api` as users have it: processes of a controller, a gateway and workers without models."""

import asyncio
import json
import re
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from llmctl.cli.serve.api import OF_FASTCHAT
from tests.conftest import ROOT, Llmctl
from tests.services.api.gateway import CHAT, Reply, connected, run
from tests.services.api.processes import GATEWAY, fleet, started, together, worker_command


def test_when_one_of_two_workers_is_killed_only_its_streams_end() -> None:
    async def work() -> list[Reply]:
        async with fleet() as parts:
            asking = [asyncio.create_task(parts.gateway.post(max_tokens=60)) for _ in range(16)]
            await asyncio.sleep(0.4)
            await parts.workers[0].kill()
            # New ones succeed at once, and while the controller still counts the dead one.
            for _ in range(4):
                later = await parts.gateway.post(max_tokens=2)
                assert (later.status, later.events[-1]) == (200, b"[DONE]")
                assert b"error" not in later.body
            return list(await asyncio.gather(*asking))

    replies = run(work())
    assert all(reply.status == 200 and reply.is_whole for reply in replies)
    assert all(reply.events[-1] == b"[DONE]" for reply in replies)
    broken = [reply for reply in replies if b'"error"' in reply.body]
    assert len(broken) == 8
    assert all(json.loads(reply.events[-2])["error"]["code"] == "worker_failed" for reply in broken)
    assert all(reply.body.count(b"token ") == 60 for reply in replies if reply not in broken)


def test_without_its_controller_traffic_goes_on_and_the_table_is_whole_soon_after_its_return() -> None:
    async def work() -> None:
        async with fleet() as parts, AsyncExitStack() as stack:
            streaming = asyncio.create_task(parts.gateway.post(max_tokens=100))
            await parts.controller.kill()
            for _ in range(10):
                assert (await parts.gateway.post(max_tokens=2)).status == 200
            # Longer than silence takes a worker out where a controller lives.
            await asyncio.sleep(1.6)
            assert await parts.num_known() == 2
            assert (await parts.gateway.post(max_tokens=2)).status == 200
            port = str(parts.controller.port)
            again = ["llmctl", "serve", "controller", "--port", port, "--interval", "0.5"]
            (controller,) = await together(stack, [again])
            begun = time.monotonic()
            async with asyncio.timeout(5):
                while len((await controller.get("/workers")).json["workers"]) < 2:
                    await asyncio.sleep(0.05)
            assert time.monotonic() - begun < 5
            # It is heard by the gateway as before.
            await together(stack, [worker_command(controller)])
            await parts.until_known(3)
            assert (await streaming).body.count(b"token ") == 100

    run(work(), limit_s=40)


def test_a_gateway_that_is_told_to_end_lets_its_streams_end_first() -> None:
    async def work() -> None:
        async with fleet() as parts, connected(parts.gateway.port) as wire:
            wire.send_json(CHAT, model="fake", stream=True, max_tokens=40)
            await wire.head()
            ending = asyncio.create_task(parts.gateway.end())
            pieces = [await wire.chunk()]
            while pieces[-1]:
                pieces.append(await wire.chunk())
            assert b"".join(pieces).count(b"token ") == 40
            assert b"error" not in b"".join(pieces)
            assert await ending == 0

    run(work())


def test_a_gateway_may_start_before_everything_else() -> None:
    async def work() -> None:
        async with started(*GATEWAY, "--controller", "127.0.0.1:9") as gateway:
            assert (await gateway.get("/health")).status == 200
            ready = await gateway.get("/ready")
            assert ready.status == 503
            reply = await gateway.post()
            assert (reply.status, reply.error["code"]) == (503, "no_worker")
            gateway.process.send_signal(signal.SIGINT)
            assert await gateway.process.wait() == 130

    run(work())


@pytest.mark.parametrize(
    ("flags", "code", "told"),
    [
        (["--host", "0.0.0.0"], 2, "--api-key-file"),
        (["--host", "0.0.0.0", "--token-file", "token", "--open"], 2, "--api-key-file"),
        (["--open", "--api-key-file", "keys"], 2, "--open"),
        (["--controller", "http://fleet.example:21001"], 2, "--token-file"),
        (["--controller", "ftp://x"], 2, "http://127.0.0.1:21001"),
        (["--controller-address", "ftp://x"], 2, "http://127.0.0.1:21001"),
        (["--dispatch-method", "random"], 2, "least-wait"),
        (["--api-key-file", "absent"], 3, "absent"),
        (["--api-key-file", "empty"], 7, "empty"),
        (["--token-file", "keys"], 7, "keys"),
        (["--timeout", "0"], 2, "--timeout"),
        (["--port", "65536"], 2, "--port"),
    ],
)
def test_flags_that_cannot_be_are_refused_with_a_remedy(
    flags: list[str], code: int, told: str, llmctl: Llmctl, tmp_path: Path
) -> None:
    for name, text in (("token", "t0ken"), ("keys", "k1\nk2"), ("empty", "\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    in_folder = [
        str(tmp_path / flag) if flag in ("token", "keys", "empty", "absent") else flag for flag in flags
    ]
    ended = llmctl("serve", "api", "--port", "0", *in_folder)
    assert ended.code == code
    assert told in ended.err
    assert "k1" not in ended.err


def test_flags_of_fastchat_are_refused_with_flags_that_there_are(llmctl: Llmctl) -> None:
    shown = llmctl("serve", "api", "--help").out
    for name, remedy in OF_FASTCHAT.items():
        assert f"{name} " not in shown
        assert all(flag in shown for flag in re.findall(r"--[a-z-]+", remedy)), remedy
        assert llmctl("serve", "api", name, "x").code == 2


def test_a_port_that_is_taken_is_told() -> None:
    async def work() -> None:
        async with started(*GATEWAY) as gateway:
            second = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "llmctl", "serve", "api", "--port", str(gateway.port)),
                cwd=ROOT,
                stderr=asyncio.subprocess.PIPE,
            )
            _, err = await second.communicate()
            assert second.returncode == 2
            assert f"port {gateway.port}" in err.decode()

    run(work())
