"""What the parts of a fleet tell each other: a worker its state, a controller who serves what.

Names, not numbers: a field that a newer version adds is ignored, one of the wrong type or of a value that
cannot be is refused by name, so that no worker wins every request with a queue of -5.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from llmctl.services.fields import MAX_COUNT, Fields
from llmctl.services.parts import part_url

MAX_TOKENS = 2**31
MAX_MODELS, MAX_WORKERS = 1000, 10_000
_MAX_TIME_S = 2.0**40


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """A model that a worker serves, and how busy it is."""

    name: str
    aliases: tuple[str, ...] = ()
    context_length: int | None = None
    """Prompt and answer together, in tokens."""
    capabilities: tuple[str, ...] = ("chat", "completions")
    """What may be asked of it: chat, completions, embeddings, score."""
    created: int = 0
    """Seconds since 1970."""
    owned_by: str = "llmctl"
    max_running: int = 1
    num_running: int = 0
    num_waiting: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """All names that it answers to, its own first."""
        return (self.name, *self.aliases)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """All that a worker tells of itself; it is told whole each time."""

    url: str
    """Where the gateway reaches it: scheme, host and port."""
    id: str
    """Made anew at each start: a worker that was started again is another one."""
    models: tuple[ModelState, ...]
    num_running: int = 0
    num_waiting: int = 0
    max_running: int = 1
    kv_used: float = 0.0
    """Share of the memory for keys and values that is in use, 0 to 1."""
    tokens_per_s: float = 0.0
    """Generated, over the last seconds."""
    is_draining: bool = False
    """Whether it takes no new requests."""
    version: str = ""
    """Of llmctl."""
    started: float = 0.0
    """Seconds since 1970."""

    def model(self, name: str) -> ModelState | None:
        """The model that answers to `name`."""
        return next((model for model in self.models if name in model.names), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A worker in a controller's table."""

    state: WorkerState
    age_s: float
    """Since it was last heard of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A controller's table as a gateway gets it."""

    workers: tuple[Heard, ...]
    dispatch: str
    """How the controller wants workers chosen."""
    version: int
    """Another one means that workers came, went, drain or serve other models; load alone changes nothing."""
    boot: str
    """Made anew at each start of the controller."""
    up_s: float
    """Since the controller was started: a young one has not heard of all workers yet."""
    expires_s: float
    """Silence after which a worker is taken out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a controller answers to a worker that told its state."""

    interval_s: float
    """Until it wants to hear of it again."""
    expires_s: float


def to_json(state: WorkerState) -> dict[str, Any]:
    """The JSON object for a worker's state."""
    return asdict(state)


def model_to_json(model: ModelState) -> dict[str, Any]:
    """The JSON object for a model."""
    return asdict(model)


def from_json(value: Any) -> WorkerState:
    """The state in a JSON value; raises `UsageError` naming the field that is missing or cannot be."""
    return _state(Fields(value, ""))


def listing_to_json(listing: Listing) -> dict[str, Any]:
    """The JSON object for a table: each worker is its state and its age."""
    workers = [{**to_json(heard.state), "age_s": heard.age_s} for heard in listing.workers]
    return {**{name: getattr(listing, name) for name in _LISTING}, "workers": workers}


_LISTING = ("dispatch", "version", "boot", "up_s", "expires_s")


def listing_from_json(value: Any) -> Listing:
    """The table in a JSON value; raises `UsageError` as `from_json` does."""
    fields = Fields(value, "")
    return Listing(
        workers=fields.objects("workers", _heard, most=MAX_WORKERS),
        dispatch=fields.text("dispatch"),
        version=fields.count("version", 0, most=2**62),
        boot=fields.text("boot", ""),
        up_s=fields.number("up_s", math.inf, most=_MAX_TIME_S),
        expires_s=fields.number("expires_s", 6.0, most=_MAX_TIME_S),
    )


def terms_from_json(value: Any) -> Terms:
    """A controller's answer in a JSON value; raises `UsageError` as `from_json` does."""
    fields = Fields(value, "")
    return Terms(
        interval_s=fields.number("interval_s", 2.0, most=3600.0),
        expires_s=fields.number("expires_s", 6.0, most=_MAX_TIME_S),
    )


def terms_to_json(terms: Terms) -> dict[str, Any]:
    """The JSON object for a controller's answer."""
    return asdict(terms)


def union(states: Iterable[WorkerState]) -> tuple[ModelState, ...]:
    """The models of all workers that take requests, by name: the least context, and the sum of the load."""
    found: dict[str, ModelState] = {}
    for state in states:
        for model in () if state.is_draining else state.models:
            same = found.get(model.name)
            found[model.name] = model if same is None else _merged(same, model)
    return tuple(found[name] for name in sorted(found))


def model_cards(models: Iterable[ModelState]) -> list[dict[str, Any]]:
    """The entries of `/v1/models`: a model under its name, then under its aliases, no name twice."""
    cards: dict[str, dict[str, Any]] = {}
    for model in models:
        for name in model.names:
            cards.setdefault(name, _card(model, name))
    return list(cards.values())


def _merged(one: ModelState, other: ModelState) -> ModelState:
    lengths = [each.context_length for each in (one, other) if each.context_length is not None]
    return ModelState(
        name=one.name,
        aliases=tuple(dict.fromkeys((*one.aliases, *other.aliases))),
        context_length=min(lengths, default=None),
        capabilities=tuple(dict.fromkeys((*one.capabilities, *other.capabilities))),
        created=min(one.created, other.created),
        owned_by=one.owned_by,
        max_running=one.max_running + other.max_running,
        num_running=one.num_running + other.num_running,
        num_waiting=one.num_waiting + other.num_waiting,
    )


def _card(model: ModelState, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        "root": model.name,
        "parent": None,
        "max_model_len": model.context_length,
        "capabilities": list(model.capabilities),
    }


# Reading


def _state(fields: Fields) -> WorkerState:
    return WorkerState(
        url=part_url(fields.text("url"), what="url"),
        id=fields.identifier("id"),
        models=fields.objects("models", _model, most=MAX_MODELS),
        num_running=fields.count("num_running"),
        num_waiting=fields.count("num_waiting"),
        max_running=fields.count("max_running", least=1),
        kv_used=fields.number("kv_used", 0.0, most=1.0),
        tokens_per_s=fields.number("tokens_per_s", 0.0, most=float(MAX_COUNT)),
        is_draining=fields.flag("is_draining"),
        version=fields.text("version", ""),
        started=fields.number("started", 0.0, most=_MAX_TIME_S),
    )


def _model(fields: Fields) -> ModelState:
    return ModelState(
        name=fields.text("name"),
        aliases=fields.texts("aliases", ()),
        context_length=fields.optional_count("context_length", most=MAX_TOKENS),
        capabilities=fields.texts("capabilities", ("chat", "completions")),
        created=fields.count("created", 0, most=int(_MAX_TIME_S)),
        owned_by=fields.text("owned_by", "llmctl"),
        max_running=fields.count("max_running", 1, least=1),
        num_running=fields.count("num_running", 0),
        num_waiting=fields.count("num_waiting", 0),
    )


def _heard(fields: Fields) -> Heard:
    return Heard(state=_state(fields), age_s=fields.number("age_s", most=_MAX_TIME_S))
