"""Whether the tables of a model's tokens are still of one size once an adapter has replaced some of them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmctl.core.errors import BadFileError


def vocabulary(model: Any) -> dict[str, int]:
    """The rows of parameters that have one for each token: of the table, and of the head with its bias."""
    modules = [
        each for each in (model.get_input_embeddings(), model.get_output_embeddings()) if each is not None
    ]
    own = {id(each) for module in modules for each in module.parameters(recurse=False)}
    parameters = model.named_parameters(remove_duplicate=False)
    return {name: each.shape[0] for name, each in parameters if id(each) in own}


def check_sizes(folder: Path, before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    """What a user should know of new sizes: `before` of the base, `after` of the merged model.

    Raises `BadFileError` where one table of the adapter in `folder` has a new size and another has not.
    """
    resized = [name for name in before if after[name] != before[name]]
    if not resized:
        return
    first = resized[0]
    for name, rows in after.items():
        if rows != after[first] and before[name] == before[first]:
            raise BadFileError(
                f"{folder} makes {first} {after[first]} tokens long, and {name} stays at {rows}: no model "
                "has two vocabularies",
                hint="save the adapter again with both tables: save_embedding_layers=True",
            )
    for name in resized:
        if after[name] < before[name]:
            yield (
                f"{name} has {after[name]} rows in the adapter and {before[name]} in the base: tokens from "
                f"{after[name]} on are outside of the vocabulary, whatever the tokenizer makes"
            )
