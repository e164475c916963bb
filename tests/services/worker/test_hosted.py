"""What a worker serves, by its names and by what can be asked of it."""

import pytest

from llmctl.core.errors import NotFoundError, UsageError
from llmctl.services.http.errors import ParameterError
from llmctl.services.worker.hosted import CHAT, COMPLETIONS, Hosted, Models
from tests.services.worker.fakes import FakeText, FakeTokens, hosted, hosted_vectors


def test_a_model_answers_to_its_name_and_its_aliases() -> None:
    model = hosted(name="org/model", aliases=("a", "b"))
    models = Models([model])
    assert [models.find(name) for name in ("org/model", "a", "b")] == [model] * 3


@pytest.mark.parametrize("name", ["model", "org", "ORG/MODEL", "org/model/", "", "c"])
def test_no_other_name_is_taken_for_it(name: str) -> None:
    models = Models([hosted(name="org/model", aliases=("a",))])
    with pytest.raises(NotFoundError, match="no model") as caught:
        models.find(name)
    assert (caught.value.code, caught.value.hint) == ("model_not_found", "there is org/model, a")


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="two models are called 'b'"):
        Models([hosted(name="a", aliases=("b",)), hosted(name="b")])


def test_a_name_may_be_left_out_where_there_is_one_model() -> None:
    one = hosted()
    assert Models([one]).only(None) is one
    with pytest.raises(ParameterError, match="model is missing"):
        Models([one, hosted_vectors()]).only(None)


def test_a_model_that_writes_says_that_it_gives_no_vectors() -> None:
    with pytest.raises(UsageError, match="fake cannot give vectors") as caught:
        hosted().embedder()
    assert caught.value.hint is not None
    assert "/v1/chat/completions" in caught.value.hint


def test_a_model_of_vectors_says_that_it_does_not_write() -> None:
    with pytest.raises(UsageError, match=r"vectors cannot answer messages") as caught:
        hosted_vectors().writer(CHAT)
    assert caught.value.hint == "it can give vectors (/v1/embeddings)"


def test_a_model_without_a_template_says_what_it_needs_to_chat() -> None:
    model = Hosted(
        name="base", context_length=9, capabilities=(COMPLETIONS,), tokens=FakeTokens(), text=FakeText()
    )
    assert model.writer(COMPLETIONS) is model.text
    with pytest.raises(UsageError) as caught:
        model.writer(CHAT)
    assert "--template" in (caught.value.hint or "")


def test_the_load_of_several_models_is_their_sum() -> None:
    texts = [FakeText(num_open=2), FakeText(num_open=3)]
    models = Models([hosted(texts[0], name="a"), hosted(texts[1], name="b"), hosted_vectors()])
    assert (models.load.num_running, models.load.max_running) == (5, 17)
    assert [each.state.num_running for each in models.all] == [2, 3, 0]
