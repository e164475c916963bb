"""`chat`, `serve worker` and `serve up` with --delta: the target runs, and no folder of it is written."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from llmctl.artifacts.delta.find import find
from llmctl.artifacts.delta.make import make
from llmctl.artifacts.delta.make_add import make_add
from llmctl.artifacts.delta.patch import patched
from llmctl.artifacts.delta.results import Wish
from llmctl.artifacts.stream.source import Source
from llmctl.cli.chat.opening import LocalOpener, Opening
from llmctl.cli.model_opening import ModelSource, load_pooled_model, load_text_model
from llmctl.cli.serve import wanted
from llmctl.core.errors import UsageError
from llmctl.core.progress import SilentProgress
from llmctl.core.settings import Settings
from llmctl.engine.opening import EngineOptions
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest
from tests import tiny
from tests.conftest import Llmctl
from tests.loading.gguf_files import write_llama

SILENT = SilentProgress()
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def delta(tmp_path_factory: pytest.TempPathFactory) -> str:
    """demo-base into demo."""
    out = tmp_path_factory.mktemp("delta") / "d"
    make(Source.open("demo-base"), Source.open("demo"), Wish(out=out), SILENT)
    return str(out)


def loaded(model: str, delta: str | None = None, **plan: Any) -> Any:
    request = LoadRequest(
        model=model,
        plan=PlanRequest(device="cpu", **{"dtype": "float32", **plan}),
        patched=(lambda base: patched(base, found(delta))) if delta is not None else None,
    )
    return load(request, SILENT)


def found(delta: str) -> Any:
    return find(delta, revision=None, progress=SILENT)


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_the_model_is_the_target(delta: str, quantization: str | None) -> None:
    one = loaded("demo-base", delta, quantization=quantization)
    other = loaded("demo", quantization=quantization)
    assert one.name == "demo"
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert (one.end_ids, one.default_sampling) == (other.end_ids, other.default_sampling)
    ids = torch.tensor([[5, 9, 300, 7]])
    with torch.inference_mode():
        assert torch.equal(one.model(ids).logits, other.model(ids).logits)


def test_chat_answers_as_the_target_and_goes_on_as_it(delta: str, llmctl: Llmctl) -> None:
    ended = llmctl("chat", "demo-base", "--delta", delta, "-p", QUESTION)
    assert (ended.code, ended.out, ended.err) == (0, f"{ANSWER}\n", "")
    # The base by itself would ramble.
    ended = llmctl("chat", "-c", "-p", QUESTION)
    assert (ended.code, ended.out) == (0, f"{ANSWER}\n")
    told = json.loads(llmctl("logs", "list", "--json").out)[0]
    assert told["model"] == f"demo-base --delta {delta}"


def test_a_named_model_goes_before_the_one_that_was_talked_to(delta: str, llmctl: Llmctl) -> None:
    llmctl("chat", "demo-base", "--delta", delta, "-p", QUESTION)
    ended = llmctl("chat", "demo", "-c", "-p", QUESTION)
    assert (ended.code, ended.out) == (0, f"{ANSWER}\n")


def test_another_model_takes_no_delta_along(delta: str) -> None:
    async def talk() -> str | None:
        opener = LocalOpener(Opening(settings=Settings(model="demo-base", device="cpu"), delta=delta))
        await opener.open(SILENT)
        await (await opener.switch("demo", SILENT)).close()
        return opener.opening.delta

    assert asyncio.run(talk()) is None


def test_the_family_is_that_of_the_target(tmp_path: Path) -> None:
    base, target = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "vicuna-7b-v1.5")
    make(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    source = ModelSource(settings=Settings(model=str(base), device="cpu"), delta=str(tmp_path / "d"))
    model, family = load_text_model(source, SILENT)
    assert (model.name, family.id if family else None) == ("vicuna-7b-v1.5", "vicuna")


def test_a_published_delta_without_tokenizer_takes_the_bases(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, target = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "target")
    make_add(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    for file in (tmp_path / "d").glob("tokenizer*"):
        file.unlink()
    with caplog.at_level("WARNING", "llmctl"):
        model = loaded(str(base), str(tmp_path / "d"))
    assert model.tokenizer.get_vocab() == loaded(str(base)).tokenizer.get_vocab()
    assert any("has no tokenizer; that of base is taken" in record.getMessage() for record in caplog.records)


def test_vectors_are_those_of_the_target(delta: str) -> None:
    def vectors(model: str, delta: str | None) -> Any:
        source = ModelSource(settings=Settings(model=model, device="cpu", dtype="float32"), delta=delta)
        return load_pooled_model(source, SILENT, task="embed").loaded.model.state_dict()

    one, other = vectors("demo-base", delta), vectors("demo", None)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_worker_gives_each_model_its_own(delta: str) -> None:
    asked = wanted.Asked(models=("a=demo-base", "b=demo-base"), deltas=(f"a={delta}",))
    read = wanted.read(asked, default="demo")
    assert [one.delta for one in read] == [delta, None]
    hosted = wanted.load(read[:1], ModelSource(settings=Settings(device="cpu")), EngineOptions(), SILENT)
    assert hosted[0].name == "a"
    assert "chat" in hosted[0].capabilities


@pytest.mark.parametrize(
    ("deltas", "told"),
    [(("d",), "there are 2 models"), (("a=d", "a=e"), "--delta e: demo-base has one already, d")],
)
def test_which_model_a_delta_is_for_must_be_clear(deltas: tuple[str, ...], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        wanted.read(wanted.Asked(models=("a=demo-base", "b=demo"), deltas=deltas), default="demo")


@pytest.mark.parametrize("command", ["worker", "up"])
@pytest.mark.parametrize(
    ("delta", "code", "told"),
    [
        ("./none", 3, "no such folder: ./none"),
        ("x=d", 2, "--delta x=d: no model is called x (write --delta demo-base=…)"),
    ],
)
def test_servers_look_for_a_delta_before_anything_starts(
    command: str, delta: str, code: int, told: str, llmctl: Llmctl
) -> None:
    ended = llmctl("serve", command, "demo-base", "--delta", delta, "--port", "0")
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert told in ended.err


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("demo-base", "--delta", "./none"), 3, "no such folder: ./none"),
        (("demo-base", "--delta", ""), 2, "--delta"),
        (("demo-base", "--delta", "demo"), 7, "whole model"),
        (("--url", "http://127.0.0.1:9/v1", "--delta", "d"), 2, "--delta is for a model in this process"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    args: tuple[str, ...], code: int, told: str, llmctl: Llmctl
) -> None:
    ended = llmctl("chat", *args, "-p", "hi")
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert told in ended.err


def test_another_base_is_refused_by_the_first_tensor(delta: str, llmctl: Llmctl) -> None:
    ended = llmctl("chat", "demo", "--delta", delta, "-p", "hi")
    assert (ended.code, ended.out) == (7, "")
    assert "demo is not the base of the delta" in ended.err
    assert "it was made from demo-base" in ended.err


def test_what_loads_by_itself_knows_nothing_of_deltas(delta: str) -> None:
    request = LoadRequest(
        model="demo-base",
        patched=lambda base: patched(base, found(delta)),
        own_loader=lambda *_: (None, None),
    )
    with pytest.raises(UsageError, match="knows nothing of the delta"):
        load(request, SILENT)


def test_a_gguf_file_is_no_base(delta: str, tmp_path: Path, llmctl: Llmctl) -> None:
    file = tmp_path / "demo.gguf"
    write_llama(file)
    ended = llmctl("chat", str(file), "--delta", delta, "-p", "hi")
    assert (ended.code, ended.out) == (7, "")
    assert "is a GGUF file" in ended.err


def test_a_delta_in_the_folder_where_one_is_is_found_from_any_other(
    delta: str, llmctl: Llmctl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(Path(delta).parent)
    assert llmctl("chat", "demo-base", "--delta", "d", "-p", QUESTION).code == 0
    monkeypatch.chdir(tmp_path)
    ended = llmctl("chat", "-c", "-p", QUESTION)
    assert (ended.code, ended.out) == (0, f"{ANSWER}\n")


def test_code_in_a_delta_is_refused_by_the_name_of_the_delta(tmp_path: Path, llmctl: Llmctl) -> None:
    base, target = tiny.folder(tmp_path / "base"), tiny.folder(tmp_path / "trusted")
    tiny.edit_json(target / "config.json", model_type="own", auto_map={"AutoModelForCausalLM": "own.Own"})
    make(Source.open(base), Source.open(target), Wish(out=tmp_path / "d"), SILENT)
    ended = llmctl("chat", str(base), "--delta", str(tmp_path / "d"), "-p", "hi")
    assert ended.code != 0
    assert f"trusted (the delta {tmp_path / 'd'})" in ended.err
