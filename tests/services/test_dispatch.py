"""The choice of a worker: no idle one is passed over for a queue, and prefixes stay where they are."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.services import dispatch
from llmctl.services.dispatch import (
    METHODS,
    Candidate,
    Method,
    choose,
    expected_waits,
    method_named,
    prefix_of,
)

COUNTS = st.integers(0, 1_000_000)
CANDIDATES = st.builds(
    Candidate,
    id=st.text("abcdef", min_size=1, max_size=4),
    url=st.just("http://127.0.0.1:1"),
    num_running=COUNTS,
    num_waiting=COUNTS,
    max_running=st.integers(1, 1_000_000),
    num_in_flight=st.integers(-1000, 1000),
    tokens_per_s=st.just(0.0) | st.floats(0, 1e6),
)
FLEETS = st.lists(CANDIDATES, min_size=1, max_size=6)
RELAXED = settings(deadline=None, max_examples=60)


def one(name: str = "a", **fields: Any) -> Candidate:
    return Candidate(**{"id": name, "url": f"http://{name}", "max_running": 4, **fields})


def chosen(
    *workers: Candidate, method: Method = "least-wait", prefix: bytes | None = None, seed: int = 0
) -> str:
    return choose(workers, method=method, prefix=prefix, rng=random.Random(seed)).id


def shares(*workers: Candidate, method: Method, num: int = 400) -> Counter[str]:
    rng = random.Random(1)
    return Counter(choose(workers, method=method, prefix=None, rng=rng).id for _ in range(num))


@RELAXED
@given(FLEETS, st.sampled_from(METHODS), st.none() | st.binary(), st.integers())
def test_someone_is_always_chosen(
    workers: list[Candidate], method: Method, prefix: bytes | None, seed: int
) -> None:
    rng = random.Random(seed)
    assert choose(workers, method=method, prefix=prefix, rng=rng) in workers


@RELAXED
@given(FLEETS, st.sampled_from(METHODS), st.integers())
def test_nobody_waits_while_a_worker_is_free(workers: list[Candidate], method: Method, seed: int) -> None:
    taken = choose(workers, method=method, prefix=None, rng=random.Random(seed))
    if any(worker.num_free for worker in workers):
        assert taken.num_queued == 0


@RELAXED
@given(FLEETS)
def test_waits_are_finite_and_nothing_divides_by_zero(workers: list[Candidate]) -> None:
    for worker, wait in zip(workers, expected_waits(workers), strict=True):
        assert 0 <= wait < float("inf")
        assert (wait == 0) is (worker.num_queued == 0)
        assert not (worker.num_free and worker.num_queued)


@RELAXED
@given(FLEETS, st.integers(0, 5), st.integers(1, 1000))
def test_more_waiting_never_makes_the_wait_shorter(workers: list[Candidate], index: int, more: int) -> None:
    index %= len(workers)
    busier = list(workers)
    busier[index] = replace(workers[index], num_waiting=workers[index].num_waiting + more)
    assert expected_waits(busier)[index] >= expected_waits(workers)[index]


@RELAXED
@given(FLEETS, st.binary(min_size=1))
def test_a_prefix_goes_to_the_same_worker_whatever_the_order(workers: list[Candidate], prefix: bytes) -> None:
    workers = list({worker.id: worker for worker in workers}.values())
    reverse = workers[::-1]
    assert chosen(*workers, method="prefix", prefix=prefix) == chosen(
        *reverse, method="prefix", prefix=prefix, seed=9
    )


# Least wait


@pytest.mark.parametrize(
    ("worker", "queued", "free"),
    [
        (one(), 0, 4),
        (one(num_running=3), 0, 1),
        (one(num_running=4), 0, 0),
        (one(num_running=6), 2, 0),
        (one(num_running=2, num_waiting=1), 1, 0),
        (one(num_running=2, num_in_flight=1), 0, 1),
        (one(num_running=2, num_in_flight=5), 3, 0),
        (one(num_running=4, num_waiting=3, num_in_flight=-2), 1, 0),
        (one(num_running=4, num_waiting=3, num_in_flight=-9), 0, 4),
    ],
)
def test_a_queue_is_what_finds_no_place(worker: Candidate, queued: int, free: int) -> None:
    assert (worker.num_queued, worker.num_free) == (queued, free)


def test_the_shorter_wait_wins() -> None:
    slow = one("slow", num_running=4, num_waiting=2, tokens_per_s=10.0)
    fast = one("fast", num_running=4, num_waiting=9, tokens_per_s=100.0)
    assert chosen(slow, fast) == "fast"


def test_of_two_without_a_queue_the_emptier_wins() -> None:
    assert chosen(one("a", num_running=3), one("b", num_running=2)) == "b"
    assert chosen(one("a", num_running=3), one("b", num_running=5, max_running=16)) == "b"


def test_equals_share_the_work() -> None:
    counts = shares(one("a"), one("b"), method="least-wait")
    assert min(counts.values()) > 150


def test_what_was_sent_and_not_told_yet_counts() -> None:
    assert chosen(one("a", num_in_flight=2), one("b", num_running=1)) == "b"


def test_an_unknown_speed_is_the_mean_of_the_others() -> None:
    waits = expected_waits([one(num_waiting=1, tokens_per_s=speed) for speed in (50.0, 150.0, 0.0)])
    assert waits[2] == expected_waits([one(num_waiting=1, tokens_per_s=100.0)])[0]


def test_one_that_has_hardly_begun_is_not_taken_for_slow() -> None:
    begun, busy = one(num_waiting=1, tokens_per_s=0.1), one(num_waiting=1, tokens_per_s=100.0)
    assert expected_waits([begun, busy])[0] <= 30 * expected_waits([begun, busy])[1]


# Lottery


def test_a_lottery_draws_by_free_places() -> None:
    counts = shares(
        one("a", num_running=3), one("b", num_running=1), one("c", num_running=4), method="lottery"
    )
    assert counts["c"] == 0
    assert 2 < counts["b"] / counts["a"] < 5


def test_a_lottery_of_full_workers_prefers_short_queues() -> None:
    counts = shares(one("a", num_running=4, num_waiting=9), one("b", num_running=4), method="lottery")
    assert counts["b"] > 5 * counts["a"] > 0


# Prefix affinity

PREFIXES = [f"conversation {number}".encode() for number in range(300)]


def spread(*workers: Candidate) -> list[str]:
    return [chosen(*workers, method="prefix", prefix=prefix) for prefix in PREFIXES]


def test_prefixes_spread_over_the_workers() -> None:
    assert min(Counter(spread(one("a"), one("b"), one("c"))).values()) > 60


def test_only_the_prefixes_of_a_worker_that_goes_move() -> None:
    before, after = spread(one("a"), one("b"), one("c")), spread(one("a"), one("c"))
    assert all(old == new for old, new in zip(before, after, strict=True) if old != "b")


def test_a_worker_that_comes_takes_only_its_own_prefixes() -> None:
    before, after = spread(one("a"), one("b")), spread(one("a"), one("b"), one("d"))
    assert {new for old, new in zip(before, after, strict=True) if old != new} == {"d"}


def test_a_busy_worker_keeps_its_prefixes_until_it_is_overloaded() -> None:
    fleet = one("a"), one("b"), one("c")
    prefix = next(each for each in PREFIXES if chosen(*fleet, method="prefix", prefix=each) == "a")
    full = one("a", num_running=4, num_in_flight=1, tokens_per_s=200.0)
    assert chosen(full, *fleet[1:], method="prefix", prefix=prefix) == "a"
    overloaded = replace(full, num_waiting=20)
    second = chosen(*fleet[1:], method="prefix", prefix=prefix)
    assert chosen(overloaded, *fleet[1:], method="prefix", prefix=prefix) == second


def test_without_a_prefix_the_least_wait_decides() -> None:
    assert chosen(one("a", num_running=1), one("b"), method="prefix") == "b"


# What the beginning of a prompt is


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"messages": None},
        {"messages": []},
        {"messages": 5.5},
        {"messages": [[[[]]]]},
        {"prompt": ""},
        {"prompt": {}},
    ],
)
def test_some_requests_have_no_beginning(body: dict[str, Any]) -> None:
    assert prefix_of(body) in (None, b"\n")


def test_the_turns_of_one_conversation_have_one_beginning() -> None:
    first = [{"role": "system", "content": "s" * 2000}, {"role": "user", "content": "Hi"}]
    second = [*first, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "Why?"}]
    assert prefix_of({"messages": first}) == prefix_of({"messages": second})


@pytest.mark.parametrize(
    ("one_body", "other"),
    [
        ({"prompt": "a"}, {"prompt": "b"}),
        ({"prompt": [1, 2]}, {"prompt": [12]}),
        (
            {"messages": [{"role": "user", "content": "a"}]},
            {"messages": [{"role": "system", "content": "a"}]},
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "b"}]}]},
        ),
    ],
)
def test_prompts_that_begin_differently_differ(one_body: dict[str, Any], other: dict[str, Any]) -> None:
    assert prefix_of(one_body) != prefix_of(other)


def test_a_beginning_is_short_whatever_the_prompt() -> None:
    prompts: list[Any] = ["x" * 10**6, ["y" * 10**6] * 9, list(range(10**5)), [[]] * 10**5, "\ud800" * 9999]
    for prompt in prompts:
        assert len(prefix_of({"prompt": prompt}) or b"") <= 4 * dispatch.MAX_PREFIX_CHARACTERS


@RELAXED
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner),
    )
)
def test_no_body_brings_the_reader_down(value: Any) -> None:
    prefix_of({"messages": value})
    prefix_of({"prompt": value})


# Names


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("least-wait", "least-wait"),
        ("shortest_queue", "least-wait"),
        ("lottery", "lottery"),
        ("prefix", "prefix"),
    ],
)
def test_a_method_has_the_names_of_fastchat_too(name: str, method: str) -> None:
    assert method_named(name) == method


def test_an_unknown_method_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="'random'") as caught:
        method_named("random")
    assert "least-wait, lottery, prefix" in (caught.value.hint or "")
