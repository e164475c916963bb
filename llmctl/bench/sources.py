"""The models that `engine` measures: random ones of a real shape, made in memory, or checkpoints.

Each comes twice where transformers is measured as well, because the engine owns the model that it runs.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from transformers.initialization import no_init_weights

from llmctl.bench.shapes import Shape, Stack
from llmctl.core.errors import BadFileError, DoesNotFitError, UsageError
from llmctl.core.progress import Progress
from llmctl.core.sizes import shown
from llmctl.core.types import SamplingParams
from llmctl.loading import devices, memory
from llmctl.loading.loader import LoadedModel, LoadRequest, load, quiet_transformers
from llmctl.loading.planning.hardware import Device
from llmctl.loading.planning.plan import BYTES, LoadPlan, PlanRequest
from llmctl.loading.unreadable import UNREADABLE, first_line
from llmctl.quant import prepare
from llmctl.quant.activations import Memo
from llmctl.quant.methods import Scheme

DENSE = "bf16"
"""As `--dtype` calls a model that is not quantised; the other names are keys of `quant.methods.METHODS`."""
_DTYPE = "bfloat16"
_WEIGHT_SCALE = 0.02
_NUM_DRAWN = 1 << 22
"""Random numbers that are drawn; the weights are these over and over, each from another place on."""


class Source(Protocol):
    """Makes one model as often as asked."""

    @property
    def name(self) -> str:
        """What is told to users."""
        ...

    @property
    def kind(self) -> str:
        """Of the device: cpu, cuda, ..."""
        ...

    def loaded(self, dtype: str, progress: Progress) -> LoadedModel:
        """The model for the engine; `dtype` is `DENSE` or a key of `METHODS`.

        Raises `DoesNotFitError`, and what loading raises.
        """
        ...


class NoText:
    """Stands in for a tokenizer where ids are all there is; see `detokenize.Vocabulary`."""

    all_special_ids: list[int] = []  # noqa: RUF012  # the protocol's own type
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012

    def convert_ids_to_tokens(self, ids: int) -> str:
        """The number as a word."""
        return f"{ids} "

    def decode(self, ids: list[int], *, clean_up_tokenization_spaces: bool) -> str:
        """The numbers with spaces between."""
        del clean_up_tokenization_spaces
        return "".join(map(self.convert_ids_to_tokens, ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomSource:
    """Models of a real shape with random weights, the same ones each time."""

    shape: Shape
    stack: Stack
    device: Device
    tokenizer: Any = field(default_factory=NoText)

    @property
    def name(self) -> str:
        """The model whose shape it is."""
        return f"the shape of {self.shape.source}, random weights"

    @property
    def kind(self) -> str:
        """See `Source`."""
        return self.device.kind

    def loaded(self, dtype: str, progress: Progress) -> LoadedModel:
        """See `Source`."""
        self._check_memory()
        progress.stage(f"make {self.name}")
        scheme = None if dtype == DENSE else Scheme(body=dtype)
        try:
            with memory.frugal():
                model = self._made()
                if scheme is not None:
                    progress.stage(f"quantise to {dtype}")
                    prepare.quantise(model, scheme, dtype=model.dtype, memo=Memo())
        except RuntimeError as error:
            if reason := devices.out_of_memory(error):
                raise DoesNotFitError(
                    f"memory ran out for {self.name}: {reason}", hint="take a smaller --shape"
                ) from error
            raise
        return LoadedModel(
            name=self.name,
            model=model,
            tokenizer=self.tokenizer,
            plan=LoadPlan(device=self.device, dtype=_DTYPE, num_bytes=0, reasons=(), quant=scheme),
            context_length=self.stack.context,
            vocabulary_size=self.stack.vocabulary_size,
            end_ids=frozenset(),
            default_sampling=SamplingParams(),
        )

    @property
    def num_weights(self) -> int:
        """Numbers in the model, but for norms and biases."""
        table = self.stack.vocabulary_size * self.shape.hidden
        return self.stack.num_layers * self.shape.num_weights + table * (1 if self.stack.is_tied else 2)

    def _check_memory(self) -> None:
        needed, free = self.num_weights * BYTES[_DTYPE], self.device.free_bytes
        if needed > free:
            raise DoesNotFitError(
                f"{self.name} takes about {shown(needed)}, {self.device.place} has {shown(free)} free",
                hint="take a smaller --shape",
            )

    def _made(self) -> Any:
        with torch.device(self.device.place), no_init_weights():
            model = transformers.AutoModelForCausalLM.from_config(self._config(), dtype=torch.bfloat16)
        model.tie_weights()
        _fill(model)
        return model.eval()

    def _config(self) -> Any:
        shape, stack = self.shape, self.stack
        return transformers.AutoConfig.for_model(
            stack.model_type,
            hidden_size=shape.hidden,
            intermediate_size=shape.intermediate,
            num_attention_heads=shape.num_heads,
            num_key_value_heads=shape.num_kv_heads,
            head_dim=shape.head_size,
            num_hidden_layers=stack.num_layers,
            vocab_size=stack.vocabulary_size,
            max_position_embeddings=stack.context,
            tie_word_embeddings=stack.is_tied,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSource:
    """A model that can be loaded, quantised as `--load-8bit` and its like do it."""

    model: str
    kind: str
    """Of the device; see `Source`."""
    trust_remote_code: bool = False

    @property
    def name(self) -> str:
        """As it was given."""
        return self.model

    def loaded(self, dtype: str, progress: Progress) -> LoadedModel:
        """See `Source`; raises `UsageError` for a model that does not generate token by token."""
        quantization = None if dtype == DENSE else dtype
        plan = PlanRequest(device=self.kind, dtype=_DTYPE, quantization=quantization)
        found = load(
            LoadRequest(model=self.model, plan=plan, trust_remote_code=self.trust_remote_code), progress
        )
        if found.generates != "causal":
            raise UsageError(f"{self.model} is no causal model: the engine does not batch it")
        return found


def read_tokenizer(folder: str) -> Any:
    """The tokenizer in a folder. Raises `BadFileError`."""
    if not Path(folder).expanduser().is_dir():
        raise UsageError(f"--tokenizer must be a folder with a tokenizer.json, not {folder!r}")
    try:
        with quiet_transformers():
            return transformers.AutoTokenizer.from_pretrained(
                Path(folder).expanduser(), local_files_only=True, trust_remote_code=False
            )
    except UNREADABLE as error:
        raise BadFileError(f"the tokenizer in {folder} does not load: {first_line(error)}") from error


def _fill(model: Any) -> None:
    """Random matrices; what has one dimension is a bias, or a norm that is made as ones."""
    drawn = torch.empty(_NUM_DRAWN, dtype=model.dtype, device=model.device)
    drawn.normal_(0.0, _WEIGHT_SCALE, generator=torch.Generator(model.device).manual_seed(0))
    # So that there is a whole piece behind each place.
    drawn = drawn.repeat(2)
    with torch.no_grad():
        for number, (name, weight) in enumerate(model.named_parameters()):
            if weight.dim() > 1:
                first = 1009 * number % _NUM_DRAWN
                for piece in weight.view(-1).split(_NUM_DRAWN):
                    piece.copy_(drawn[first : first + len(piece)])
            elif name.endswith("bias"):
                weight.zero_()
