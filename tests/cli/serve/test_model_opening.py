"""A worker finds out by itself what a model is made for."""

import asyncio
from pathlib import Path

import pytest

from llmctl.cli.model_opening import ModelSource, load_pooled_model, writes_text
from llmctl.cli.serve.wanted import Asked, load, read
from llmctl.core.errors import BadFileError, NotFoundError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.core.settings import Settings
from llmctl.engine.opening import EngineOptions
from tests import tiny
from tests.engine.pooling import made


def source(model: Path | str) -> ModelSource:
    return ModelSource(settings=Settings(model=str(model), device="cpu"))


def writes(model: Path | str) -> bool:
    return writes_text(source(model), SilentProgress())


def as_embedder(folder: Path) -> Path:
    """A decoder that somebody made into a model for vectors."""
    return made.with_modules(folder, ("Pooling", {"pooling_mode_lasttoken": True}))


def test_a_decoder_writes_and_an_encoder_does_not(tmp_path: Path) -> None:
    assert writes("demo")
    assert writes(tiny.folder(tmp_path / "llama"))
    assert writes(tiny.folder(tmp_path / "t5", kind="t5"))
    assert not writes(made.folder(tmp_path / "bert", made.model("bert")))


def test_a_decoder_with_the_files_of_an_embedding_model_gives_vectors(tmp_path: Path) -> None:
    folder = as_embedder(tiny.folder(tmp_path / "llama"))
    assert not writes(folder)
    assert load_pooled_model(source(folder), SilentProgress(), task=None).task == "embed"


def test_what_nobody_knows_is_told_by_whoever_loads_it(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "odd")
    tiny.edit_json(folder / "config.json", model_type="no_such_kind", architectures=["Odd"])
    assert writes(folder)
    with pytest.raises(NotFoundError):
        writes(tmp_path / "nosuch")


def loaded(*models: str, **flags: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Name and capabilities of each, closed again."""
    wanted = read(Asked(models=models, **flags), default="demo")
    found = load(wanted, ModelSource(settings=Settings(device="cpu")), EngineOptions(), SilentProgress())

    async def close() -> None:
        for each in found:
            await each.close()

    asyncio.run(close())
    return [(each.name, each.capabilities) for each in found]


def test_models_of_all_kinds_are_served_in_the_order_in_which_they_were_named(tmp_path: Path) -> None:
    bert = made.folder(tmp_path / "bert", made.model("bert"))
    assert loaded(str(bert), "org/demo=demo", f"v={bert}") == [
        ("bert", ("embeddings",)),
        ("org/demo", ("chat", "completions")),
        ("v", ("embeddings",)),
    ]


def test_the_user_may_know_better(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "llama")
    assert loaded(str(folder), tasks=("embed",)) == [("llama", ("embeddings",))]
    assert loaded(str(as_embedder(folder)), tasks=("generate",)) == [("llama", ("chat", "completions"))]
    with pytest.raises(BadFileError, match="no classifier"):
        loaded(str(folder), tasks=("classify",))


def test_what_is_said_of_a_model_that_does_not_write_is_not_passed_over(tmp_path: Path) -> None:
    bert = made.folder(tmp_path / "bert", made.model("bert"))
    with pytest.raises(UsageError, match="--template does nothing there"):
        loaded(str(bert), templates=("vicuna_v1.1",))
