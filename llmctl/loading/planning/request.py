"""What a load plan is made from: what the user asks, and what is known of the checkpoint. Plain data."""

from dataclasses import dataclass

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
    quantisation: Quantisation | None = None
    """How the files are quantised; None: they are not."""
