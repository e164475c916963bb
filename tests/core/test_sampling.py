"""The ranges of sampling parameters at their edges, and what no JSON may do to them."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmctl.core import sampling, settings
from llmctl.core.errors import UsageError
from llmctl.core.types import SamplingParams

BASE = SamplingParams()
JUST = 1e-9

# key: accepted, refused
EDGES: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0, 0.0, JUST, 1, 100, 100.0], [-JUST, -1, 100.001, 101]),
    "top_p": ([JUST, 0.5, 1, 1.0], [0, 0.0, -0.1, 1.001, 2]),
    "top_k": ([0, 1, 50, 50.0, 10**400], [-1, 0.5]),
    "min_p": ([0, 0.0, 0.5, 1, 1.0], [-JUST, 1.001]),
    "repetition_penalty": ([0.01, 1, 10, 10.0], [0, 0.0, -1, 1e-9, 10.001]),
    "presence_penalty": ([-2, -2.0, 0, 2, 2.0], [-2.001, 2.001]),
    "frequency_penalty": ([-2, -2.0, 0, 2, 2.0], [-2.001, 2.001]),
    "seed": ([0, 1, 2**63 - 1], [-1, 2**63, 0.5]),
    "max_new_tokens": ([1, 2.0, 10**9], [0, -1, 1.5]),
    "logprobs": ([0, 20], [-1, 21]),
    "n": ([1, 128, 2.0], [0, -1, 129, 1.5]),
    "prompt_logprobs": ([0, 20], [-1, 21]),
    "min_tokens": ([0, 1, 10**9], [-1, 0.5]),
}
LIMITS = {**sampling.RANGES, **sampling.REQUEST_RANGES}
ACCEPTED = [(key, value) for key, (accepted, _) in EDGES.items() for value in accepted]
REFUSED = [(key, value) for key, (_, refused) in EDGES.items() for value in refused]


def test_every_range_has_its_edges_here() -> None:
    assert EDGES.keys() == LIMITS.keys()
    assert sampling.RANGES.keys() | {"stop", "stop_token_ids"} == set(sampling.KEYS)


def test_a_parameter_is_either_a_setting_or_of_one_request() -> None:
    assert sorted((*sampling.KEYS, *sampling.REQUEST_KEYS)) == sorted(sampling.ALL_KEYS)
    assert {"n", "logit_bias", "ignore_eos"} <= set(sampling.REQUEST_KEYS)
    assert not set(sampling.REQUEST_KEYS) & set(settings.KEYS)


@pytest.mark.parametrize(("key", "value"), ACCEPTED)
def test_a_value_at_the_edge_is_taken_in_its_type(key: str, value: Any) -> None:
    taken = getattr(sampling.update(BASE, {key: value}), key)
    assert taken == value
    assert type(taken) is LIMITS[key].kind


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_value_beyond_the_edge_is_refused_by_name_value_and_limit(key: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        sampling.update(BASE, {key: value})
    assert caught.value.message.startswith(f"{key} must be ")
    assert caught.value.message.endswith(f"not {value!r}")


@pytest.mark.parametrize("key", EDGES)
@pytest.mark.parametrize(
    "value", [True, False, math.nan, math.inf, -math.inf, "1", "", [], [1], {}, b"1", 1j]
)
def test_what_is_no_number_is_refused(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{key} must be "):
        sampling.update(BASE, {key: value})


def test_a_limit_reads_as_words() -> None:
    assert {key: str(limits) for key, limits in LIMITS.items()} == {
        "temperature": "at least 0 and at most 100",
        "top_p": "more than 0 and at most 1",
        "top_k": "at least 0",
        "min_p": "at least 0 and at most 1",
        "repetition_penalty": "at least 0.01 and at most 10",
        "presence_penalty": "at least -2 and at most 2",
        "frequency_penalty": "at least -2 and at most 2",
        "seed": "at least 0 and at most 9223372036854775807",
        "max_new_tokens": "at least 1",
        "logprobs": "at least 0 and at most 20",
        "n": "at least 1 and at most 128",
        "prompt_logprobs": "at least 0 and at most 20",
        "min_tokens": "at least 0",
    }


@pytest.mark.parametrize("alias", ["max_tokens", "max_completion_tokens"])
def test_openai_names_are_understood(alias: str) -> None:
    assert sampling.update(BASE, {alias: 5}).max_new_tokens == 5


def test_none_leaves_a_field_as_it_is() -> None:
    base = SamplingParams(temperature=0.3, seed=4)
    assert sampling.update(base, dict.fromkeys(sampling.ALL_KEYS)) == base


def test_what_is_not_named_stays() -> None:
    base = SamplingParams(temperature=0.3, seed=4)
    assert sampling.update(base, {"seed": 5}) == SamplingParams(temperature=0.3, seed=5)
    assert base.seed == 4


@pytest.mark.parametrize(
    ("value", "taken"),
    [("END", ("END",)), (["a", "b"], ("a", "b")), (("a",), ("a",)), ([], ()), ("\n", ("\n",))],
)
def test_stop_takes_a_string_or_several(value: Any, taken: tuple[str, ...]) -> None:
    assert sampling.update(BASE, {"stop": value}).stop == taken


@pytest.mark.parametrize("value", ["", [""], ["a", ""], 5, [5], [None], {"a": 1}, True])
def test_stop_takes_nothing_else(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^stop must be a string or a list of strings that are not empty"):
        sampling.update(BASE, {"stop": value})


@pytest.mark.parametrize("value", [-1, 7, "7", [-1], ["7"], [True], [1.0], [None], {}])
def test_stop_token_ids_take_nothing_but_ids(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^stop_token_ids must be a list of token ids"):
        sampling.update(BASE, {"stop_token_ids": value})
    assert sampling.update(BASE, {"stop_token_ids": [0, 7]}).stop_token_ids == (0, 7)


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        ({}, ()),
        ({"7": 1, "0": -100}, ((0, -100.0), (7, 1.0))),
        ({7: 100.0}, ((7, 100.0),)),
        ([[7, 1], (3, 0.5)], ((3, 0.5), (7, 1.0))),
        (((3, 0.5),), ((3, 0.5),)),
    ],
)
def test_a_bias_is_taken_as_json_and_as_it_is_kept(value: Any, taken: Any) -> None:
    assert sampling.update(BASE, {"logit_bias": value}).logit_bias == taken


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "logit_bias must map token ids to numbers, not 5"),
        ([1], "logit_bias must map token ids to numbers, not [1]"),
        ([[1, 2, 3]], "logit_bias must map token ids to numbers, not [[1, 2, 3]]"),
        ({"a": 1}, "logit_bias: 'a' is no token id (a whole number from 0)"),
        ({"-1": 1}, "logit_bias: '-1' is no token id (a whole number from 0)"),
        ({"٣": 1}, "logit_bias: '٣' is no token id (a whole number from 0)"),
        ([[True, 1]], "logit_bias: True is no token id (a whole number from 0)"),
        ([[[], 1]], "logit_bias: [] is no token id (a whole number from 0)"),
        ({"1": 1, "01": 2}, "logit_bias has token id 1 twice"),
        ({"1": 101}, "logit_bias of token 1 must be at least -100 and at most 100, not 101"),
        ({"1": "x"}, "logit_bias of token 1 must be a number, not 'x'"),
    ],
)
def test_what_is_no_bias_is_refused(value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        sampling.update(BASE, {"logit_bias": value})
    assert caught.value.message == message


def test_a_token_id_of_thousands_of_digits_is_none() -> None:
    with pytest.raises(UsageError, match="is no token id"):
        sampling.update(BASE, {"logit_bias": {"1" * 5000: 1}})


def test_bad_words_are_strings() -> None:
    assert sampling.update(BASE, {"bad_words": "damn"}).bad_words == ("damn",)
    assert sampling.update(BASE, {"bad_words": ["a", "b"]}).bad_words == ("a", "b")
    with pytest.raises(UsageError, match=r"^bad_words must be a string or a list of strings"):
        sampling.update(BASE, {"bad_words": [[1, 2]]})


def test_to_allow_no_token_is_refused() -> None:
    assert sampling.update(BASE, {"allowed_token_ids": [3, 1]}).allowed_token_ids == (3, 1)
    with pytest.raises(UsageError, match=r"^allowed_token_ids must hold at least one token id$"):
        sampling.update(BASE, {"allowed_token_ids": []})


@pytest.mark.parametrize("value", [0, 1, "true", [], 1.0])
def test_a_switch_is_true_or_false(value: Any) -> None:
    assert sampling.update(BASE, {"ignore_eos": True}).ignore_eos is True
    with pytest.raises(UsageError, match=r"^ignore_eos must be true or false, not "):
        sampling.update(BASE, {"ignore_eos": value})


def test_an_answer_cannot_be_longer_at_least_than_at_most() -> None:
    assert sampling.update(BASE, {"min_tokens": 5, "max_tokens": 5}).min_tokens == 5
    with pytest.raises(UsageError, match=r"^min_tokens must be at most 4 \(max_new_tokens\), not 5$"):
        sampling.update(BASE, {"min_tokens": 5, "max_tokens": 4})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("temprature", "did you mean 'temperature'?"),
        ("max_token", "did you mean 'max_tokens'?"),
        ("top-k", "did you mean 'top_k'?"),
    ],
)
def test_a_misspelt_key_gets_the_nearest_one(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"^unknown key '{name}'$") as caught:
        sampling.update(BASE, {name: 1})
    assert caught.value.hint == hint


def test_a_key_like_no_other_gets_all_of_them() -> None:
    with pytest.raises(UsageError) as caught:
        sampling.update(BASE, {"qqq": 1})
    assert caught.value.hint == "known: " + ", ".join((*sampling.ALL_KEYS, *sampling.ALIASES))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from((*sampling.ALL_KEYS, *sampling.ALIASES)) | st.text(), JSON, max_size=4)
)
@example({"top_k": 10**400})
@example({"max_tokens": 1e308})
@example({"temperature": -(10**400)})
def test_no_json_does_more_than_be_taken_or_refused(values: dict[str, Any]) -> None:
    try:
        params = sampling.update(BASE, values)
    except UsageError:
        return
    for key, limits in LIMITS.items():
        value = getattr(params, key)
        assert value is None or (type(value) is limits.kind and limits.low <= value <= limits.high)
    assert all(isinstance(text, str) and text for text in (*params.stop, *params.bad_words))
    ids = (*params.stop_token_ids, *(params.allowed_token_ids or (0,)), *dict(params.logit_bias))
    assert all(type(token) is int and token >= 0 for token in ids)
    assert all(type(bias) is float and -100 <= bias <= 100 for _, bias in params.logit_bias)
    assert type(params.ignore_eos) is bool
    assert hash(params) == hash(replace(params))
    assert math.isfinite(params.temperature)
    assert params.top_p > 0
    assert params.repetition_penalty >= 0.01
