"""Changing models in one process: the old one stays unless the new one is there."""

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from llmctl.cli.chat.opening import LocalOpener, Opening
from llmctl.cli.loading_flags import LoadingFlags
from llmctl.core.errors import DoesNotFitError, NotFoundError
from llmctl.core.progress import SilentProgress
from llmctl.core.settings import Settings
from llmctl.core.types import ChatRequest, Message, SamplingParams
from llmctl.loading import devices
from llmctl.loading.planning.hardware import Device
from tests import tiny
from tests.quant.formats import packers_gptq

SHORT = SamplingParams(temperature=0, max_new_tokens=2)


async def says_something(opener: LocalOpener) -> bool:
    backend = opener.backend
    assert backend is not None
    request = ChatRequest(messages=(Message(role="user", content="hello"),), sampling=SHORT)
    return bool([delta async for delta in backend.generate(request)])


async def opened(settings: Settings | None = None) -> LocalOpener:
    opener = LocalOpener(Opening(settings=settings or Settings()))
    await opener.open(SilentProgress())
    return opener


def limited(opening: Opening, context: int | None) -> Opening:
    return dataclasses.replace(opening, settings=dataclasses.replace(opening.settings, context=context))


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Have the next loads find no memory."""

    def fill(num_loads: int) -> None:
        real, left = devices.available, [num_loads]

        def available() -> Sequence[Device]:
            found = list(real())
            if left[0] > 0:
                left[0] -= 1
                return [dataclasses.replace(device, free_bytes=1) for device in found]
            return found

        monkeypatch.setattr(devices, "available", available)

    return fill


def test_a_model_is_changed_and_what_was_the_old_ones_is_forgotten() -> None:
    async def main() -> None:
        opener = await opened(Settings(context=100))
        old = opener.backend
        await opener.switch("demo-base", SilentProgress())
        assert opener.backend is not None
        assert (opener.backend.info.name, opener.identity) == ("demo-base", "demo-base")
        assert opener.backend.info.context_length == opener.backend.longest_context
        assert old is not opener.backend
        assert await says_something(opener)

    asyncio.run(main())


def test_a_model_that_is_not_there_leaves_the_old_one() -> None:
    async def main() -> None:
        opener = await opened()
        with pytest.raises(NotFoundError):
            await opener.switch("./nosuch", SilentProgress())
        assert opener.opening.settings.model == "demo"
        assert await says_something(opener)

    asyncio.run(main())


def test_the_log_knows_a_file_by_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m-Q4_0.gguf").write_bytes(b"GGUF")
    names = {
        name: LocalOpener(Opening(settings=Settings(model=name))).identity
        for name in ("./m-Q4_0.gguf", "./:Q4_0")
    }
    assert names == {"./m-Q4_0.gguf": f"{tmp_path}/m-Q4_0.gguf", "./:Q4_0": f"{tmp_path}/:Q4_0"}


def test_when_two_models_do_not_fit_at_once_the_old_one_is_freed_first(
    memory: Callable[[int], None],
) -> None:
    async def main() -> None:
        opener = await opened()
        memory(1)
        await opener.switch("demo-base", SilentProgress())
        assert opener.identity == "demo-base"
        assert await says_something(opener)

    asyncio.run(main())


def test_a_model_that_never_fits_brings_the_old_one_back(memory: Callable[[int], None]) -> None:
    async def main() -> None:
        opener = await opened()
        memory(2)
        with pytest.raises(DoesNotFitError):
            await opener.switch("demo-base", SilentProgress())
        assert opener.identity == "demo"
        assert await says_something(opener)

    asyncio.run(main())


def test_template_and_context_change_without_loading() -> None:
    async def main() -> None:
        opener = await opened()
        backend = opener.backend
        opener.reconfigure(limited(opener.opening, 50))
        assert opener.backend is backend
        assert backend is not None
        assert backend.info.context_length == 50
        opener.reconfigure(limited(opener.opening, None))
        assert backend.info.context_length == backend.longest_context

    asyncio.run(main())


def test_bits_asked_for_the_first_model_hold_for_the_next_where_they_can(tmp_path: Path) -> None:
    packers_gptq.pack_folder(tiny.folder(tmp_path / "dense"), tmp_path / "packed", group_size=32)

    async def main() -> None:
        opener = LocalOpener(Opening(settings=Settings(dtype="float32"), loading=LoadingFlags(bits=8)))
        await opener.open(SilentProgress())
        said = [opener.plan]
        for model in (tmp_path / "packed", tmp_path / "dense"):
            await opener.switch(str(model), SilentProgress())
            said.append(opener.plan)
        assert [plan.summary for plan in said if plan is not None] == [
            "float32 -> int8 on cpu",
            "GPTQ, 4 bits, groups of 32, in float32 on cpu",
            "float32 -> int8 on cpu",
        ]

    asyncio.run(main())
