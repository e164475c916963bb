"""What a configuration says of a model's make: can llmctl run it, with which class, how does it generate?

Looks at `config.json` alone, before any weight is read.
"""

from collections.abc import Mapping
from typing import Any, Literal

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    MODEL_MAPPING_NAMES,
)

from llmctl.core.errors import BadFileError, UsageError
from llmctl.loading.facts.shape import text_config

Generates = Literal["causal", "encoder-decoder", "jacobi"]
_REPEATS_PROMPT = ("codet5p",)
"""Encoder-decoders whose decoder goes on from the prompt that the encoder reads: CodeT5+ of 2b and above."""
_HEADLESS = frozenset(MODEL_MAPPING_NAMES.values())
_OF_JUDGES = frozenset(
    name
    for table in (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
        MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    )
    for name in table.values()
)
_OF_SPEECH = ("seamless_m4t", "seamless_m4t_v2")


def check(config: Mapping[str, Any], *, name: str, trust_remote_code: bool) -> None:
    """Refuse what transformers could not run, by the `config.json` of the model `name`.

    Raises `UsageError` for code of the repository that nobody trusts yet, else `BadFileError`.
    """
    check_known(config, name=name, trust_remote_code=trust_remote_code)
    if not is_known(config):
        return
    if not (continues_text(config) or _answers_text(config)) or _lacks_output(config):
        raise BadFileError(
            f"{name} ({class_names(config)}) is not a model that continues text, so it cannot chat"
        )


def check_known(config: Mapping[str, Any], *, name: str, trust_remote_code: bool) -> None:
    """Refuse what neither transformers nor trusted code of the repository has a class for; see `check`."""
    if is_known(config):
        return
    if "auto_map" not in config:
        kind, version = config.get("model_type"), transformers.__version__
        raise BadFileError(
            f"{name} has the architecture {kind!r}, which transformers {version} does not know",
            hint="a newer transformers may: pip install -U transformers",
        )
    if not trust_remote_code:
        raise own_code(name)


def class_names(config: Mapping[str, Any]) -> str:
    """The classes that the config names, else its kind, for messages."""
    told = config.get("architectures")
    return ", ".join(map(str, told)) if isinstance(told, list) else str(config.get("model_type"))


def own_code(name: str) -> UsageError:
    """The refusal of code that comes with a model."""
    return UsageError(
        f"{name} runs on code from its own repository, which llmctl does not run unasked",
        hint="read that code, then add --trust-remote-code",
    )


def no_sizes(config: Mapping[str, Any]) -> str | None:
    """What the config says of sizes that are none, which may be why a model does not load."""
    keys = ("hidden_size", "head_dim", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    sizes = {key: text_config(config).get(key) for key in keys}
    found = [f"{key}={size}" for key, size in sizes.items() if isinstance(size, int) and size < 1]
    return f"its config.json says {', '.join(found)}" if found else None


def is_known(config: Mapping[str, Any]) -> bool:
    """Whether transformers itself has the architecture."""
    kind = config.get("model_type")
    return isinstance(kind, str) and kind in CONFIG_MAPPING


def check_family(name: str, asked: str | None) -> None:
    """Raise `UsageError` for a family whose row says that it does not generate."""
    if asked == "none":
        raise UsageError(
            f"{name} belongs to a family that does not generate text",
            hint=f"`llmctl models match {name} --explain` says which family, and why",
        )


def generates(config: Any, *, name: str, asked: str | None) -> Generates:
    """How a model with the loaded `config` generates; `asked` is what its family's row says, if any.

    Raises `UsageError` where the two cannot both be right.
    """
    found: Generates = "encoder-decoder" if config.is_encoder_decoder else "causal"
    if asked is None or asked == found:
        return found
    if (asked, found) == ("jacobi", "causal"):
        return "jacobi"
    raise UsageError(
        f"{name} is said to generate as {asked!r}, but its config.json makes it {found!r}",
        hint="mend `generates` in the family's row, or see `llmctl models match` for the row that was taken",
    )


def auto_class(config: Any, *, is_pair: bool) -> Any:
    """The transformers class that loads the model of a loaded `config`."""
    usual = "AutoModelForSeq2SeqLM" if is_pair else "AutoModelForCausalLM"
    if is_known({"model_type": config.model_type}):
        return getattr(transformers, usual)
    own = getattr(config, "auto_map", None) or {}
    # ChatGLM calls itself a pair there, which it is not; older code has but the plainest entry.
    names = (usual, "AutoModelForCausalLM", "AutoModelForSeq2SeqLM", "AutoModel")
    return getattr(transformers, next((name for name in names if name in own), usual))


def model_class(config: Any) -> tuple[Any, Any]:
    """transformers' own class for the loaded `config`, and the config that the class takes.

    That is the text part of a config that has several, for classes that only know the text.
    """
    pairs, singles = (
        transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
    )
    found = (pairs if config.is_encoder_decoder else singles)[type(config)]
    classes = found if isinstance(found, tuple | list) else (found,)
    named = getattr(config, "architectures", None) or ()
    chosen = next((each for each in classes if each.__name__ in named), classes[0])
    text_class = getattr(config, "sub_configs", {}).get("text_config")
    if text_class is not None and getattr(chosen, "config_class", None) == text_class:
        return chosen, config.get_text_config()
    return chosen, config


def repeats_prompt(config: Any) -> bool:
    """Whether the decoder of a pair is given the encoder's prompt to go on from."""
    return config.model_type in _REPEATS_PROMPT


def num_layers(config: Any, tensor: str) -> int | None:
    """Layers that a checkpoint may hold on the side of `tensor`, those included that only predict ahead."""
    if config.is_encoder_decoder:
        side = "decoder" if "decoder." in tensor else "encoder"
        keys = (f"num_{side}_layers", f"{side}_layers", "num_layers")
        own = getattr(getattr(config, side, None), "num_hidden_layers", None)
        return own or next(filter(None, (getattr(config, key, None) for key in keys)), None)
    text_config = config.get_text_config()
    count = getattr(text_config, "num_hidden_layers", None)
    return None if count is None else count + (getattr(text_config, "num_nextn_predict_layers", None) or 0)


def continues_text(config: Mapping[str, Any]) -> bool:
    """Whether the architecture is made to go on from a text.

    transformers also loads encoders, and the decoder alone of a pair; both would answer nonsense.
    """
    kind = config["model_type"]
    is_encoder = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder")
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not _is_pair(config) and not is_encoder


def _answers_text(config: Mapping[str, Any]) -> bool:
    """Whether the architecture is made to read one text and write another."""
    kind = config["model_type"]
    # The others of that table listen.
    return (
        kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES and _is_pair(config) and kind not in _OF_SPEECH
    )


def _lacks_output(config: Mapping[str, Any]) -> bool:
    """Whether the classes that a config names have no output layer for text: they embed or judge."""
    told = config.get("architectures")
    named = set(map(str, told)) if isinstance(told, list) and told else {""}
    if named <= _OF_JUDGES:
        return True
    own = getattr(CONFIG_MAPPING[config["model_type"]], "tie_word_embeddings", True)
    # Where it is the table of tokens, it is there all the same.
    return named <= _HEADLESS and config.get("tie_word_embeddings", own) is False


def _is_pair(config: Mapping[str, Any]) -> bool:
    of_class = getattr(CONFIG_MAPPING[config["model_type"]], "is_encoder_decoder", False)
    return bool(config.get("is_encoder_decoder", of_class))
