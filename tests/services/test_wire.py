"""What the parts of a fleet tell each other survives the way, and what cannot be is refused by its name."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmctl.core.errors import UsageError
from llmctl.services import wire
from llmctl.services.fields import MAX_COUNT
from llmctl.services.parts import controller_urls, is_loopback, is_loopback_url, part_url
from llmctl.services.wire import Heard, Listing, ModelState, Terms, WorkerState
from tests.services.fleet_states import listing, worker

NAMES = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=20)
COUNTS = st.integers(0, MAX_COUNT)
MODELS = st.builds(
    ModelState,
    name=NAMES,
    aliases=st.lists(NAMES, max_size=3, unique=True).map(tuple),
    context_length=st.none() | st.integers(1, wire.MAX_TOKENS),
    capabilities=st.lists(NAMES, max_size=4, unique=True).map(tuple),
    created=st.integers(0, 2**40),
    owned_by=NAMES,
    max_running=st.integers(1, MAX_COUNT),
    num_running=COUNTS,
    num_waiting=COUNTS,
)
WORKERS = st.builds(
    WorkerState,
    url=st.integers(1, 65535).map("http://127.0.0.1:{}".format),
    id=st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}", fullmatch=True),
    models=st.lists(MODELS, max_size=3).map(tuple),
    num_running=COUNTS,
    num_waiting=COUNTS,
    max_running=st.integers(1, MAX_COUNT),
    kv_used=st.floats(0, 1),
    tokens_per_s=st.floats(0, MAX_COUNT),
    is_draining=st.booleans(),
    version=st.just("") | NAMES,
    started=st.floats(0, 2**40),
)
LISTINGS = st.builds(
    Listing,
    workers=st.lists(st.builds(Heard, state=WORKERS, age_s=st.floats(0, 100)), max_size=2).map(tuple),
    dispatch=NAMES,
    version=st.integers(0, 2**40),
    boot=st.just("") | NAMES,
    up_s=st.floats(0, 2**40),
    expires_s=st.floats(0, 2**40),
)
RELAXED = settings(deadline=None, max_examples=50)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


@RELAXED
@given(WORKERS)
def test_a_worker_arrives_as_it_was_told(state: WorkerState) -> None:
    assert wire.from_json(through_json(wire.to_json(state))) == state


@RELAXED
@given(LISTINGS)
def test_a_table_arrives_as_it_was_told(told: Listing) -> None:
    assert wire.listing_from_json(through_json(wire.listing_to_json(told))) == told


def test_terms_arrive_as_they_were_told() -> None:
    terms = Terms(interval_s=2.0, expires_s=6.0)
    assert wire.terms_from_json(through_json(wire.terms_to_json(terms))) == terms


def test_what_a_newer_version_adds_is_ignored() -> None:
    told = wire.to_json(worker())
    told["color"], told["models"][0]["modalities"] = "red", ["image"]
    assert wire.from_json(told) == worker()


def test_what_an_older_version_does_not_tell_has_a_default() -> None:
    told = {"url": "http://127.0.0.1:1", "id": "w", "models": [{"name": "m"}]}
    counts = {"num_running": 0, "num_waiting": 0, "max_running": 1}
    assert wire.from_json({**told, **counts}).models == (ModelState(name="m"),)


@pytest.mark.parametrize("name", ["url", "id", "models", "num_running", "num_waiting", "max_running"])
def test_what_is_missing_is_named(name: str) -> None:
    told = wire.to_json(worker())
    del told[name]
    with pytest.raises(UsageError, match=f"^{name} is missing$"):
        wire.from_json(told)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_waiting", -5),
        ("num_waiting", 1.5),
        ("num_waiting", True),
        ("num_waiting", "3"),
        ("num_waiting", None),
        ("num_waiting", 10**30),
        ("num_running", -1),
        ("max_running", 0),
        ("kv_used", math.nan),
        ("kv_used", -0.1),
        ("kv_used", 1.1),
        ("tokens_per_s", math.inf),
        ("tokens_per_s", -1),
        ("tokens_per_s", math.nan),
        ("tokens_per_s", 10**400),
        ("tokens_per_s", True),
        ("started", "today"),
        ("is_draining", 0),
        ("is_draining", "no"),
        ("id", ""),
        ("id", "../.."),
        ("id", "a b"),
        ("id", "a\n"),
        ("id", 7),
        ("id", "a" * 101),
        ("url", ""),
        ("url", 7),
        ("url", "ftp://127.0.0.1:1"),
        ("url", "http://user:secret@127.0.0.1:1"),
        ("url", "http://127.0.0.1:1/admin?x=1"),
        ("url", "http://127.0.0.1:1\r\nX: y"),
        ("version", 1),
        ("version", "a\nb"),
        ("models", {}),
        ("models", "m"),
        ("models", [{"name": "m"}] * (wire.MAX_MODELS + 1)),
    ],
)
def test_what_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be|^url .* is not scheme, host and port$") as caught:
        wire.from_json({**wire.to_json(worker()), name: value})
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("name", ""),
        ("name", None),
        ("name", "a\x1b[2J"),
        ("name", "a" * 501),
        ("name", "\ud800"),
        ("aliases", "m"),
        ("aliases", ["m", 1]),
        ("aliases", ["m"] * 101),
        ("context_length", 0),
        ("context_length", 2**40),
        ("created", -1),
        ("capabilities", [""]),
        ("max_running", 0),
    ],
)
def test_what_cannot_be_of_a_model_is_refused_with_its_place(name: str, value: Any) -> None:
    told = wire.to_json(worker(1, "a", "b"))
    told["models"][1][name] = value
    with pytest.raises(UsageError, match=rf"^models\[1\]\.{name} must be"):
        wire.from_json(told)


@pytest.mark.parametrize("value", [None, [], "x", 5, [[[[]]]]])
def test_a_message_that_is_no_object_is_refused(value: Any) -> None:
    for read in (wire.from_json, wire.listing_from_json, wire.terms_from_json):
        with pytest.raises(UsageError, match="must be a JSON object"):
            read(value)


@RELAXED
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
def test_no_value_of_any_field_brings_the_reader_down(value: Any) -> None:
    for name in wire.to_json(worker()):
        try:
            state = wire.from_json({**wire.to_json(worker()), name: value})
        except UsageError:
            continue
        assert state.num_waiting >= 0
        assert 0 <= state.tokens_per_s < math.inf


# What the models of a fleet are


def test_the_models_of_a_fleet_are_the_sum_of_its_workers() -> None:
    small = ModelState(name="m", aliases=("x",), context_length=100, num_running=1, num_waiting=2, created=5)
    large = ModelState(name="m", aliases=("y",), context_length=200, num_running=3, max_running=4, created=3)
    embeds = ModelState(name="e", capabilities=("embeddings",))
    found = wire.union([worker(1, models=(small,)), worker(2, models=(large, embeds))])
    assert [model.name for model in found] == ["e", "m"]
    assert found[1] == ModelState(
        name="m",
        aliases=("x", "y"),
        context_length=100,
        num_running=4,
        num_waiting=2,
        max_running=5,
        created=3,
    )


def test_what_only_draining_workers_serve_is_not_offered() -> None:
    assert wire.union([worker(1, "a", is_draining=True), worker(2, "b")]) == wire.union([worker(2, "b")])


def test_a_model_is_listed_under_all_its_names_once() -> None:
    models = [ModelState(name="m", aliases=("x", "n")), ModelState(name="n", context_length=7)]
    cards = wire.model_cards(models)
    assert [(card["id"], card["root"]) for card in cards] == [("m", "m"), ("x", "m"), ("n", "m")]
    assert {card["object"] for card in cards} == {"model"}


def test_a_worker_finds_its_model_by_every_name() -> None:
    state = worker(models=(ModelState(name="m", aliases=("x",)),))
    assert state.model("m") is state.model("x") is state.models[0]
    assert state.model("X") is None


# Where parts are


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("127.0.0.1:21001", "http://127.0.0.1:21001"),
        ("http://Host.Example:80/", "http://host.example:80"),
        ("https://[::1]:5", "https://[::1]:5"),
        ("localhost", "http://localhost"),
    ],
)
def test_a_url_is_written_in_one_way(text: str, url: str) -> None:
    assert part_url(text, what="it") == url
    assert part_url(url, what="it") == url


@pytest.mark.parametrize(
    "text",
    ["", " ", "http://", "http://x/v1", "http://x?y", "http://x#y", "http://x:0", "http://x:99999", "x y",
     "http://[zz]", "http://x\\@y", "http://a:b@x", "file:///etc", "http://-x", "http://x\n", "http://é"],
)  # fmt: skip
def test_what_is_no_place_of_a_part_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="scheme, host and port"):
        part_url(text, what="it")


def test_a_password_is_not_shown_again() -> None:
    with pytest.raises(UsageError) as caught:
        part_url("http://me:secret@x", what="it")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("::ffff:8.8.8.8", False),
        ("localhost.example", False),
        ("127.1", False),
        ("2130706433", False),
        ("", False),
    ],
)
def test_what_counts_as_this_machine(host: str, is_one: bool) -> None:
    assert is_loopback(host) is is_one


def test_a_url_of_this_machine_is_told_by_its_host() -> None:
    assert is_loopback_url("http://[::1]:5")
    assert not is_loopback_url("http://127.0.0.1.example")


def test_controllers_of_other_machines_take_a_token() -> None:
    far = ["http://a:1", "a:1", "localhost:2"]
    assert controller_urls(far, has_token=True) == ("http://a:1", "http://localhost:2")
    with pytest.raises(UsageError, match="http://a:1 is on another machine") as caught:
        controller_urls(far, has_token=False)
    assert "--token-file" in (caught.value.hint or "")


def test_a_listing_of_the_tests_is_one_that_can_be_told() -> None:
    assert wire.listing_from_json(wire.listing_to_json(listing(worker()))) == listing(worker())
