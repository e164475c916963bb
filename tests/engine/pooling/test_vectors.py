"""Vectors are those of the model's own forward over one text at a time, alone, in company, in any order."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from llmctl.core.errors import BadFileError, ContextOverflowError, UsageError
from llmctl.engine.pooling.model import PooledModel
from llmctl.loading.facts.pooling import Recipe
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.pooled import LoadedPooled
from tests import tiny
from tests.engine.pooling import made

DECODERS = ("qwen3", "mistral", "gemma2", "mixtral", "gpt2")
UNPACKED = ("mamba", "falcon", "lfm2")
WAYS = {**dict.fromkeys(made.ENCODERS, "padded"), "fnet": "equal", **dict.fromkeys(DECODERS, "packed")}


def close(got: Tensor, want: Tensor) -> None:
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def source(kind: str) -> Any:
    return made.model(kind, what="T5EncoderModel" if kind == "t5" else "AutoModel")


def wanted(model: Any, tokenizer: Any, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """[n, d] of `made.TEXTS`, one at a time."""
    return torch.stack([pool(made.states(model, tokenizer.encode(text))) for text in made.TEXTS])


@pytest.mark.parametrize("kind", [*made.ENCODERS, *DECODERS, *UNPACKED])
def test_the_mean_of_a_class_is_that_of_its_own_forward(kind: str, tmp_path: Path) -> None:
    model = source(kind)
    opened = made.opened(made.folder(tmp_path, model))
    want = wanted(model, made.tokenizer(), lambda states: states.mean(0))
    texts = list(made.TEXTS)
    together = opened.embed(texts, normalises=False)
    close(together.vectors, want)
    close(opened.embed(texts[::-1], normalises=False).vectors.flip(0), want)
    close(torch.cat([opened.embed([text], normalises=False).vectors for text in texts]), want)
    assert together.num_tokens == sum(len(made.tokenizer().encode(text)) for text in texts)
    assert together.vectors.dtype == torch.float32
    if kind in WAYS:
        assert opened.way == WAYS[kind]
    else:
        assert opened.way in ("padded", "equal")


@pytest.mark.parametrize(
    ("key", "pool"),
    [
        ("pooling_mode_cls_token", lambda states: states[0]),
        ("pooling_mode_lasttoken", lambda states: states[-1]),
        ("pooling_mode_max_tokens", lambda states: states.max(0).values),
        ("pooling_mode_mean_sqrt_len_tokens", lambda states: states.sum(0) / len(states) ** 0.5),
        (
            "pooling_mode_weightedmean_tokens",
            lambda states: (
                sum(place * row for place, row in enumerate(states, 1)) / sum(range(len(states) + 1))
            ),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["bert", "qwen3"])
def test_the_checkpoint_says_how_to_pool(
    kind: str, key: str, pool: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    model = source(kind)
    folder = made.with_modules(made.folder(tmp_path, model), ("Pooling", {key: True}))
    close(made.opened(folder).embed(made.TEXTS).vectors, wanted(model, made.tokenizer(), pool))


def test_dense_layers_and_normalising_follow_the_pooling(tmp_path: Path) -> None:
    model, generator = made.model("bert"), torch.Generator().manual_seed(0)
    folder = made.with_modules(
        made.folder(tmp_path, model),
        ("Pooling", {"pooling_mode": "cls"}),
        ("Dense", {"in_features": 32, "activation_function": "torch.nn.modules.activation.Tanh"}),
        ("LayerNorm", {"dimension": 8}),
        ("Normalize", {}),
    )
    weight, bias = torch.randn(8, 32, generator=generator), torch.randn(8, generator=generator)
    scale = torch.randn(8, generator=generator)
    save_file({"linear.weight": weight, "linear.bias": bias}, folder / "2_Dense" / "model.safetensors")
    save_file({"norm.weight": scale, "norm.bias": bias}, folder / "3_LayerNorm" / "model.safetensors")

    def pool(states: Tensor) -> Tensor:
        dense = torch.tanh(states[0] @ weight.T + bias)
        normed = torch.nn.functional.layer_norm(dense, (8,), scale, bias)
        return normed / normed.norm()

    opened = made.opened(folder)
    want = wanted(model, made.tokenizer(), pool)
    assert opened.dimensions == 8
    close(opened.embed(made.TEXTS).vectors, want)
    raw = opened.embed(made.TEXTS, normalises=False).vectors
    close(raw / raw.norm(dim=1, keepdim=True), want)
    assert not torch.allclose(raw, want)


def test_a_dense_layer_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    folder = made.with_modules(
        made.folder(tmp_path, made.model("bert")), ("Pooling", {"pooling_mode": "cls"}), ("Dense", {})
    )
    save_file({"linear.weight": torch.zeros(8, 31)}, folder / "2_Dense" / "model.safetensors")
    with pytest.raises(BadFileError, match="do not fit the model"):
        made.opened(folder)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "decoder"
    model = made.model("qwen3", what="AutoModelForCausalLM", tie_word_embeddings=True)
    return made.folder(path, model)


def test_vectors_are_cut_and_made_of_length_one_again(decoder: Path) -> None:
    opened = made.opened(decoder, row={"pooling": "last"})
    whole = opened.embed(made.TEXTS).vectors
    cut = opened.embed(made.TEXTS, dimensions=8).vectors
    close(whole.norm(dim=1), torch.ones(4))
    close(cut, whole[:, :8] / whole[:, :8].norm(dim=1, keepdim=True))
    assert cut.shape == (4, 8)


@pytest.mark.parametrize("dimensions", [0, -1, 33])
def test_dimensions_that_there_are_not_are_refused(decoder: Path, dimensions: int) -> None:
    with pytest.raises(UsageError, match="have 32"):
        made.opened(decoder).embed(["hi"], dimensions=dimensions)


def test_a_model_that_was_loaded_to_generate_gives_vectors_of_its_last_tokens(decoder: Path) -> None:
    loaded = load(LoadRequest(model=str(decoder)), made.SilentProgress())
    model = made.model("qwen3", what="AutoModelForCausalLM", tie_word_embeddings=True).model
    want = wanted(model, made.tokenizer(), lambda states: states[-1] / states[-1].norm())
    opened = PooledModel(LoadedPooled.of(loaded))
    close(opened.embed(made.TEXTS).vectors, want)
    opened.release()
    with torch.no_grad():
        assert loaded.model.generate(torch.tensor([[1, 2]]), max_new_tokens=2, do_sample=False).shape == (
            1,
            4,
        )


def test_a_model_that_was_released_gives_nothing_wrong(decoder: Path) -> None:
    opened = made.opened(decoder)
    opened.release()
    with pytest.raises(AssertionError, match="released"):
        opened.embed(["hi", "there"])


def test_a_long_text_runs_in_pieces_and_many_short_ones_in_batches(decoder: Path) -> None:
    loaded = made.opened(decoder).loaded
    small, large = PooledModel(loaded, budget=16), PooledModel(loaded, budget=512)
    texts = ["abc " * 30, *(f"text number {number}" for number in range(9))]
    assert max(map(len, small.plan([1, 8, 8, 8, 40]))) == 2
    close(small.embed(texts).vectors, large.embed(texts).vectors)


def test_token_ids_are_taken_as_they_are(decoder: Path) -> None:
    opened, ids = made.opened(decoder), made.tokenizer().encode("hello")
    close(opened.embed([ids, "hello"]).vectors[0], opened.embed(["hello"]).vectors[0])


def test_a_real_tokenizer_and_its_model(shared: Path, tmp_path: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(shared / "assets" / "tokenizers" / "qwen2.5")
    model = made.model("qwen2", vocab_size=len(tokenizer))
    opened = made.opened(made.folder(tmp_path, model, tokenizer), row={"pooling": "last"})
    texts = ["Déjà vu, 你好!", "The quick brown fox jumps over the lazy dog.", "42"]
    want = torch.stack([made.states(model, tokenizer.encode(text))[-1] for text in texts])
    close(opened.embed(texts, normalises=False).vectors, want)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "no input"),
        (["hi", ""], "input 1 is empty"),
        (["  \n "], "token id|empty"),
        (["hi", []], "input 1 is empty"),
        ([[5, 260]], r"token id 260 of input 0 .* \(0 to 259\)"),
        ([[-1]], "token id -1"),
        (["a\ud800"], "input 0 is not valid Unicode"),
    ],
)
def test_an_input_that_cannot_be_is_refused(inputs: Any, message: str, decoder: Path) -> None:
    opened = made.opened(decoder)
    if message == "token id|empty":
        # Space is a token here like any other.
        assert opened.embed(inputs).vectors.shape == (1, 32)
        return
    with pytest.raises(UsageError, match=message):
        opened.embed(inputs)


@pytest.mark.parametrize(("kind", "limit"), [("bert", 130), ("roberta", 128)])
def test_what_is_too_long_is_refused_with_the_limit(kind: str, limit: int, tmp_path: Path) -> None:
    opened = made.opened(made.folder(tmp_path, made.model(kind)))
    assert opened.embed([[5] * limit]).vectors.shape == (1, 32)
    with pytest.raises(
        ContextOverflowError, match=f"input 1 has {limit + 1} tokens, .* at most {limit}"
    ) as told:
        opened.embed(["fine", [5] * (limit + 1)])
    assert (told.value.prompt_tokens, told.value.context_length) == (limit + 1, limit)


def test_the_checkpoints_own_limit_case_and_prompts_count(tmp_path: Path) -> None:
    folder = made.with_modules(
        made.folder(tmp_path, made.model("bert")),
        ("Pooling", {"pooling_mode": "mean"}),
        sentence_bert_config={"max_seq_length": 20, "do_lower_case": True},
        config_sentence_transformers={
            "prompts": {"query": "find: ", "document": ""},
            "default_prompt_name": "document",
        },
    )
    opened = made.opened(folder)
    close(opened.embed(["HELLO"]).vectors, opened.embed(["hello"]).vectors)
    close(opened.embed(["Hi"], prompt="query").vectors, opened.embed(["find: hi"]).vectors)
    with pytest.raises(ContextOverflowError, match="at most 20"):
        opened.embed(["a text of more than twenty bytes"])
    with pytest.raises(UsageError, match="no prompt 'passage'") as told:
        opened.embed(["hi"], prompt="passage")
    assert told.value.hint == "it has document, query"


def test_a_prompt_may_be_left_out_of_the_pooling(tmp_path: Path) -> None:
    model = made.model("bert")
    folder = made.with_modules(
        made.folder(tmp_path, model),
        ("Pooling", {"pooling_mode": "mean", "include_prompt": False}),
        config_sentence_transformers={"prompts": {"query": "find: "}},
    )
    states = made.states(model, made.tokenizer().encode("find: this"))
    got = made.opened(folder).embed(["this", "find: this"], prompt="query").vectors
    close(got[0], states[len("<find: ") :].mean(0))


def test_eight_bits_come_close(tmp_path: Path) -> None:
    folder = made.folder(tmp_path, made.model("bert", hidden_size=64, intermediate_size=128))
    exact, packed = made.opened(folder), made.opened(folder, quantization="8bit")
    one, other = (each.embed(made.TEXTS).vectors for each in (exact, packed))
    assert (one * other).sum(1).min() > 0.999
    assert not torch.equal(one, other)
    close(torch.cat([packed.embed([text]).vectors for text in made.TEXTS]), other)


def test_half_a_batch_runs_at_a_time_where_memory_runs_out(
    decoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = made.opened(decoder)
    want, compute = opened.embed(made.TEXTS).vectors, opened._compute
    sizes: list[int] = []

    def scarce(items: Any) -> Tensor:
        sizes.append(len(items))
        if len(items) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")
        return compute(items)

    monkeypatch.setattr(opened, "_compute", scarce)
    close(opened.embed(made.TEXTS).vectors, want)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]


def test_numbers_that_are_none_are_an_error(decoder: Path) -> None:
    loaded = made.opened(decoder).loaded
    opened = PooledModel(dataclasses.replace(loaded, recipe=Recipe(modes=("mean",))))
    with torch.no_grad():
        loaded.model.norm.weight.fill_(torch.nan)
    with pytest.raises(BadFileError, match="no number"):
        opened.embed(["hi"])


def test_the_vocabulary_of_the_tokenizer_may_be_smaller(decoder: Path) -> None:
    assert made.opened(decoder).loaded.vocabulary_size == tiny.VOCABULARY_SIZE
