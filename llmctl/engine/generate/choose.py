"""The ways to generate by name, imported on use; a family's row or the loader says which. Without torch."""

from collections.abc import Callable, Generator
from typing import Any

from llmctl.core import lazy
from llmctl.core.errors import UsageError
from llmctl.core.types import Delta
from llmctl.engine.detokenize import Vocabulary
from llmctl.engine.generate.job import Job

Generate = Callable[[Any, Vocabulary, Job], Generator[Delta, None, None]]
"""Model, tokenizer and job into deltas, as `single.generate` says."""

WAYS = {
    "causal": "llmctl.engine.generate.single:generate",
    "encoder-decoder": "llmctl.engine.generate.encoder_decoder:generate",
    "jacobi": "llmctl.engine.generate.jacobi:generate",
}
REFUSED = {
    "exllama": (
        "llmctl does not use the ExLlamaV2 package, which --enable-exllama called in FastChat",
        "leave --enable-exllama out and give the model's 16-bit checkpoint: EXL2 files need that package",
    ),
    "xft": (
        "llmctl does not use the xFasterTransformer package, which --enable-xft called in FastChat",
        "leave --enable-xft out and give the model's ordinary checkpoint: it runs on the CPU, see --dtype",
    ),
    "none": (
        "this kind of model (embedding, reranker, external API) does not generate text by itself",
        "take a model that does, or reach an external one with --url",
    ),
}
"""Names that FastChat or a family's row may say: (message, hint)."""


def stream_function(generates: str) -> Generate:
    """The way to generate called `generates`.

    Raises `UsageError` for one that is refused or unknown.
    """
    if generates in REFUSED:
        message, hint = REFUSED[generates]
        raise UsageError(message, hint=hint)
    if generates not in WAYS:
        raise UsageError(
            f"no way to generate is called {generates!r}", hint=f"there are {', '.join(sorted(WAYS))}"
        )
    found: Generate = lazy.load(WAYS[generates])
    return found
