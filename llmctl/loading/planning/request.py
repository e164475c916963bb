"""What a load plan is made from: what the user asks, and what is known of the checkpoint. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from llmctl.loading.facts.quantisation import Quantisation


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """How the user wants a model loaded; the defaults leave all of it to the plan."""

    device: str = "auto"
    """A device's kind, or "auto"."""
    dtype: str = "auto"
    """A key of `plan.BYTES`, or "auto"."""
    row_dtype: str | None = None
    """What the family's row says when the user says "auto"."""
    num_gpus: int | None = None
    """None: all of `gpus`, else one."""
    gpus: tuple[int, ...] | None = None
    """Numbers of the GPUs that may be used, the first `num_gpus` of them are; None: those from 0 on."""
    max_gpu_memory: int | None = None
    """Bytes that weights may take on each GPU."""
    quantization: str | None = None
    """A key of `quant.methods.METHODS`, "8bit" or "4bit" (the best of so many bits here), the format that the
    checkpoint is in, or "none"; None leaves the checkpoint as it is."""
    cpu_offloading: bool = False
    """Whether weights that the GPUs have no room for may stay in the host's memory."""
    skip: tuple[str, ...] = ()
    """Regular expressions of modules that are not quantised."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The fields that nobody asked of this model, and the file or variable that sets each: what they say of
    GPUs holds where there are some, and `quantization` for checkpoints that are not quantised."""

    def called(self, name: str, value: object) -> str:
        """How errors call a field: by its flag, or by the place where it is set."""
        origin = self.settings.get(name)
        return f"--{name.replace('_', '-')} {value}" if origin is None else f"{name} = {value} ({origin})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the plan must know of a checkpoint; `describe.facts` reads it from the headers of the files."""

    name: str
    """As messages call it."""
    stored_dtype: str
    """The numbers that most of it is stored in, or that its config names: a key of `plan.BYTES`."""
    num_bytes: int
    """Of all weights, as they are stored."""
    num_parameters: int
    """Packed weights unpacked, tied ones counted once."""
    num_body_parameters: int = 0
    """Those in the matrices of the layers, which quantisation packs."""
    num_head_parameters: int = 0
    """Those of the output layer; 0 where it is the table of tokens."""
    num_embedding_parameters: int = 0
    """Those of the table of tokens."""
    num_layers: int = 1
    """Blocks that are kept whole when a model is spread."""
    hidden_size: int | None = None
    """Numbers of a token between the layers; None: not known."""
    is_encoder_decoder: bool = False
    """Whether encoder and decoder look up in the table of tokens, which keeps it dense."""
    quantisation: Quantisation | None = None
    """How the files are quantised; None: they are not."""
