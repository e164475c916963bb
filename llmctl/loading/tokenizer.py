"""Loads a model's tokenizer, with what its family's row knows better than its files."""

import logging
from collections.abc import Mapping
from typing import Any

import transformers

from llmctl.core.errors import BadFileError
from llmctl.loading import architecture
from llmctl.loading.checkpoint import Checkpoint
from llmctl.loading.unreadable import UNREADABLE, first_line

log = logging.getLogger(__name__)


def load_tokenizer(
    checkpoint: Checkpoint, config: Any, row: Mapping[str, Any], *, trust_remote_code: bool
) -> Any:
    """The tokenizer of `checkpoint`, whose config is `config`; `row` holds a family's loading keys.

    Raises `BadFileError` for one that is missing, empty or damaged, `UsageError` for code nobody trusts yet.
    """
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.tokenizer_folder,
            config=config,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            **_own_words(checkpoint, row),
        )
    except UNREADABLE as error:
        if "trust_remote_code" in str(error):
            raise architecture.own_code(checkpoint.name) from error
        raise BadFileError(
            f"{checkpoint.name} has no tokenizer that can be read: {first_line(error)}",
            hint=f"put tokenizer.json and tokenizer_config.json into {checkpoint.tokenizer_folder}",
        ) from error
    if not len(tokenizer):
        raise BadFileError(f"the tokenizer of {checkpoint.name} is empty")
    _adjust(tokenizer, row)
    return tokenizer


def _own_words(checkpoint: Checkpoint, row: Mapping[str, Any]) -> dict[str, Any]:
    words: dict[str, Any] = {}
    if row.get("slow_tokenizer") or row.get("use_fast") is False:
        words["use_fast"] = False
    if "padding_side" in row:
        words["padding_side"] = row["padding_side"]
    if checkpoint.gguf is not None:
        words["gguf_file"] = checkpoint.gguf.name
    return words


def _adjust(tokenizer: Any, row: Mapping[str, Any]) -> None:
    if added := row.get("added_tokens"):
        count = tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
        if count:
            log.info("the family's row adds %d special tokens", count)
    if "eos_token" in row:
        tokenizer.eos_token = row["eos_token"]
    if row.get("set_pad_to_eos") and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if "pad_token_id" in row:
        tokenizer.pad_token_id = row["pad_token_id"]
