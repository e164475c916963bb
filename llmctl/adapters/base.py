"""What an adapter class may do, in FastChat's manner: match a name, load a model, name a template.

Most families need none: they are rows of data, and `FamilyAdapter` does the three for a row.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from llmctl.adapters.names import deciding_part
from llmctl.adapters.spec import NO_TEMPLATE, OF_TOKENIZER, Family
from llmctl.core.errors import UsageError
from llmctl.core.lazy import load
from llmctl.core.places import expanded
from llmctl.core.progress import SilentProgress


class ModelAdapter(Protocol):
    """What is asked of an adapter, whatever class it is of."""

    def match(self, model_path: str) -> bool:
        """Whether a model of this name or path is of the family."""

    def load_model(self, model_path: str, from_pretrained_kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """The model and its tokenizer, ready to run."""

    def get_default_conv_template(self, model_path: str) -> Any:
        """A conversation to append messages to, that renders the prompt."""


class BaseModelAdapter:
    """The class to derive from; each of its steps can be overridden by itself."""

    use_fast_tokenizer = True
    """Kept for classes written for FastChat; the fast tokenizer is taken wherever there is one."""

    def match(self, model_path: str) -> bool:
        """Whether this adapter is for the model. A class that does not say is for none."""
        return False

    def load_model(self, model_path: str, from_pretrained_kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """The model in evaluation mode and its tokenizer.

        Loads as `llmctl chat` does. Of transformers' keywords it takes dtype, torch_dtype, revision,
        trust_remote_code and device_map (one device or "auto"); raises `UsageError` for others, and all
        that loading raises.
        """
        request = load("llmctl.loading.loader:LoadRequest")(**_wishes(model_path, from_pretrained_kwargs))
        loaded = load("llmctl.loading.loader:load")(request, SilentProgress())
        return loaded.model, loaded.tokenizer

    def get_default_conv_template(self, model_path: str) -> Any:
        """A conversation in the family's own format. Raises `UsageError` when only the tokenizer has it."""
        raise UsageError(
            f"{type(self).__name__} names no conversation template for {model_path}",
            hint="llmctl chat takes the tokenizer's own; a class names one by get_default_conv_template",
        )


class FamilyAdapter(BaseModelAdapter):
    """The adapter of a family that is a row of data."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def match(self, model_path: str) -> bool:
        """Whether the name alone fits the row, whatever other rows fit better."""
        return self.family.name_rule.hit(deciding_part(model_path)) is not None

    def load_model(self, model_path: str, from_pretrained_kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """As the base does. Raises `UsageError` for a family that is reached over the network."""
        if self.family.kind == "api":
            raise UsageError(
                f"{self.family.title} is served by its makers; it has no weights to load",
                hint="talk to its server with llmctl chat --url",
            )
        return super().load_model(model_path, from_pretrained_kwargs)

    def get_default_conv_template(self, model_path: str) -> Any:
        """A conversation with the row's template. Raises `UsageError` when the row has none."""
        if self.family.template == NO_TEMPLATE:
            raise UsageError(
                f"{self.family.title} is no chat model and has no conversation template",
                hint="continue plain text with llmctl chat --raw",
            )
        if self.family.template == OF_TOKENIZER:
            raise UsageError(
                f"the chat template of {self.family.title} lives in its tokenizer, so {model_path!r} by "
                "itself cannot be rendered",
                hint="use tokenizer.apply_chat_template, or llmctl models match FOLDER --render",
            )
        # Rendering brings Jinja, which matching does not need.
        from llmctl.prompts.conversation import ConversationFacade
        from llmctl.prompts.library import find

        return ConversationFacade(find(self.family.template))


def adapter_of(family: Family) -> ModelAdapter:
    """The object that stands for a family: a registered class's own, a row's `code`, else the plain one."""
    if family.adapter is not None:
        return family.adapter
    if family.code is not None:
        made: ModelAdapter = load(family.code)(family)
        return made
    return FamilyAdapter(family)


def template_name(adapter: ModelAdapter, model_path: str) -> str | None:
    """The name of the template that a class gives a model; None when it does not choose."""
    if (
        getattr(type(adapter), "get_default_conv_template", None)
        is BaseModelAdapter.get_default_conv_template
    ):
        return None
    conversation = adapter.get_default_conv_template(model_path)
    name = conversation if isinstance(conversation, str) else getattr(conversation, "name", None)
    if not isinstance(name, str):
        raise UsageError(
            f"{type(adapter).__name__}.get_default_conv_template must return a conversation with a name, "
            f"not {type(conversation).__name__}"
        )
    return name


def _wishes(model_path: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """transformers' keywords as fields of a `LoadRequest`."""
    left = dict(keywords)
    # What FastChat always sends, and what loading does anyway.
    left.pop("low_cpu_mem_usage", None)
    wishes: dict[str, Any] = {"model": model_path}
    dtype, device = left.pop("dtype", left.pop("torch_dtype", None)), left.pop("device_map", None)
    wishes["plan"] = load("llmctl.loading.planning.plan:PlanRequest")(
        dtype="auto" if dtype is None else str(dtype).removeprefix("torch."),
        device="auto" if device is None else str(device),
    )
    revision = left.pop("revision", None)
    # FastChat says "main" for folders too, which have no revisions.
    if revision is not None and not (revision == "main" and expanded(model_path).is_dir()):
        wishes["revision"] = revision
    wishes["trust_remote_code"] = bool(left.pop("trust_remote_code", False))
    if left:
        raise UsageError(
            f"load_model does not take {', '.join(sorted(left))}",
            hint="it takes dtype, torch_dtype, revision, trust_remote_code, device_map",
        )
    return wishes
