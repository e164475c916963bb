"""Which models a worker is to serve, read from the flags as they are given."""

from pathlib import Path

import pytest

from llmctl.cli.serve.wanted import Asked, Wanted, read
from llmctl.core.errors import NotFoundError, UsageError


def models(*texts: str, names: tuple[str, ...] = ()) -> list[tuple[str, tuple[str, ...]]]:
    """Model and names of each."""
    return [(one.model, one.names) for one in read(Asked(models=texts, names=names), default="demo")]


@pytest.mark.parametrize(
    ("text", "model", "names"),
    [
        ("demo", "demo", ()),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", ()),
        ("a=demo", "demo", ("a",)),
        ("a,b=demo", "demo", ("a", "b")),
        ("a, a ,b=demo", "demo", ("a", "b")),
        ("org/name=./folder", "./folder", ("org/name",)),
        ("a=./x=y", "./x=y", ("a",)),
    ],
)
def test_a_name_stands_before_its_model(text: str, model: str, names: tuple[str, ...]) -> None:
    assert models(text) == [(model, names)]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lr=0.1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert models("lr=0.1") == [("lr=0.1", ())]
    assert models(f"{tmp_path}/lr=0.1") == [(f"{tmp_path}/lr=0.1", ())]
    assert models("a=lr=0.1") == [("lr=0.1", ("a",))]


def test_without_a_model_it_is_the_settings_one() -> None:
    assert models() == [("demo", ())]


def test_fastchats_names_belong_to_the_models_in_their_order() -> None:
    assert models("demo", "./other", names=("a,b", "c")) == [("demo", ("a", "b")), ("./other", ("c",))]


@pytest.mark.parametrize(
    ("texts", "names", "told"),
    [
        (("=demo",), (), "empty name"),
        (("a,=demo",), (), "empty name"),
        (("a=demo", "a=demo-base"), (), "two models are called 'a'"),
        (("demo", "demo"), (), "two models are called 'demo'"),
        (("a,demo=x", "demo"), (), "two models are called 'demo'"),
        (("demo", "x"), ("a",), "1 times for 2 models"),
        (("demo",), ("a", "b"), "2 times for 1 models"),
    ],
)
def test_names_that_do_not_go_together_are_refused(
    texts: tuple[str, ...], names: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        models(*texts, names=names)


def wanted(*models: str, **flags: tuple[str, ...]) -> tuple[Wanted, ...]:
    """What the flags say."""
    return read(Asked(models=models, **flags), default="demo")


def test_a_template_is_laid_over_the_only_model_or_over_the_one_it_names() -> None:
    (one,) = wanted("demo", templates=("vicuna_v1.1",))
    assert one.template is not None
    assert one.template.named is not None
    first, second = wanted("a=demo", "b=demo-base", templates=("b=vicuna_v1.1",))
    assert (first.template is None, second.template is None) == (True, False)


def test_a_task_is_laid_over_the_only_model_or_over_the_one_it_names() -> None:
    assert [one.task for one in wanted("demo", tasks=("embed",))] == ["embed"]
    tasks = ("./b=classify", "a=generate")
    assert [one.task for one in wanted("a=demo", "./b", tasks=tasks)] == ["generate", "classify"]


@pytest.mark.parametrize("flags", [{"templates": ("vicuna_v1.1",)}, {"tasks": ("embed",)}])
def test_with_several_models_it_must_be_said_which_is_meant(flags: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UsageError, match="there are 2 models") as caught:
        wanted("a=demo", "b=demo-base", **flags)
    assert "there is a, b" in (caught.value.hint or "")


def test_what_no_task_is_is_refused() -> None:
    with pytest.raises(UsageError, match="auto, generate, embed, classify, not 'rerank'"):
        wanted("demo", tasks=("rerank",))


def test_a_template_that_is_not_there_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(NotFoundError):
        wanted("demo", templates=("./nosuch.jinja",))
