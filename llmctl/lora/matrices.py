"""From the matrices of an adapter to the change of one weight, checked against its shape."""

from llmctl.core.errors import BadFileError
from llmctl.lora.checkpoint import Adapter, AdapterTensor, LowRank
from llmctl.lora.targets import Targets
from llmctl.lora.updates import BiasUpdate, LowRankUpdate, expert_factors, layer_factors

WRONG_BASE = "the adapter belongs to another model: see base_model_name_or_path in its adapter_config.json"
DIFFERENT = "file and configuration are of different adapters: copy or download both again"


def wrong_shape(tensor: AdapterTensor, name: str, wanted: tuple[int, ...]) -> BadFileError:
    """The refusal of a tensor that does not fit `name` of the base."""
    return BadFileError(
        f"{tensor.name} of the adapter is {list(tensor.shape)}, and {name} of the base needs {list(wanted)}",
        hint=WRONG_BASE,
    )


class Matrices:
    """Makes changes; every method raises `BadFileError` for tensors that do not fit base or configuration."""

    def __init__(self, adapter: Adapter, targets: Targets) -> None:
        self._adapter, self._targets = adapter, targets

    def of_weight(
        self, name: str, parameter: str, shape: tuple[int, int], files: LowRank, *, is_transposed: bool
    ) -> LowRankUpdate:
        """The change of a matrix, which the configuration gives its rank and factor by `name`."""
        num_outputs, num_inputs = shape[::-1] if is_transposed else shape
        rank = self._rank(name, files)
        for tensor, wanted in ((files.a, (rank, num_inputs)), (files.b, (num_outputs, rank))):
            if tensor.shape != wanted:
                raise wrong_shape(tensor, parameter, wanted)
        self._check_magnitude(name, files, num_outputs)
        self._check_told(f"biases for {name}", "lora_bias", files.bias is not None)
        return LowRankUpdate(
            shape=shape,
            factors=layer_factors(files, is_transposed=is_transposed),
            factor=self._targets.factor(name),
            magnitude=files.magnitude,
            is_by_column=is_transposed,
        )

    def of_file(self, module: str, files: LowRank, *, is_transposed: bool) -> LowRankUpdate:
        """The change of a matrix that only the base's files have, so that the adapter gives its shape."""
        shape = (files.b.shape[0], files.a.shape[1])
        shape = (shape[1], shape[0]) if is_transposed else shape
        return self.of_weight(module, f"{module}.weight", shape, files, is_transposed=is_transposed)

    def of_experts(
        self, parameter: str, shape: tuple[int, ...], files: LowRank, *, is_transposed: bool
    ) -> LowRankUpdate:
        """The change of a parameter [E, N, K], or [E, K, N] where it is transposed."""
        if len(shape) != 3 or files.magnitude is not None or files.bias is not None:
            raise BadFileError(
                f"the adapter changes {parameter} in a way that PEFT has not for {list(shape)}",
                hint=WRONG_BASE,
            )
        num_experts, num_outputs, num_inputs = shape if not is_transposed else (shape[0], shape[2], shape[1])
        rank = self._targets.rank(parameter)
        wanted_a, wanted_b = (num_experts * rank, num_inputs), (num_outputs, num_experts * rank)
        for tensor, wanted in ((files.a, wanted_a), (files.b, wanted_b)):
            if tensor.shape != wanted:
                raise wrong_shape(tensor, parameter, wanted)
        return LowRankUpdate(
            shape=shape,
            factors=expert_factors(files, num_experts, is_transposed=is_transposed),
            factor=self._targets.factor(parameter),
        )

    def of_bias(self, module: str, bias: AdapterTensor, shape: tuple[int, ...], name: str) -> BiasUpdate:
        """The change of the bias `name` by that of matrix B (`lora_bias`)."""
        if bias.shape != shape:
            raise wrong_shape(bias, name, shape)
        return BiasUpdate(shape=shape, vector=bias, factor=self._targets.factor(module))

    def _rank(self, name: str, files: LowRank) -> int:
        rank, found = self._targets.rank(name), files.a.shape[0]
        if found != rank:
            raise BadFileError(
                f"{files.a.name} of the adapter is {list(files.a.shape)}, of the rank {found}; its "
                f"adapter_config.json gives {name} the rank {rank}",
                hint=DIFFERENT,
            )
        return rank

    def _check_magnitude(self, name: str, files: LowRank, num_outputs: int) -> None:
        self._check_told(f"magnitudes for {name}", "use_dora", files.magnitude is not None)
        lengths = ((num_outputs,), (1, num_outputs), (num_outputs, 1))
        if files.magnitude is not None and files.magnitude.shape not in lengths:
            raise wrong_shape(files.magnitude, name, (num_outputs,))

    def _check_told(self, what: str, key: str, has: bool) -> None:
        """What the file has or lacks must be what the configuration says under `key`."""
        config = self._adapter.config
        told = {"use_dora": config.has_magnitudes, "lora_bias": config.has_lora_bias}[key]
        if has is not told:
            raise BadFileError(
                f"{self._adapter.folder} holds {'' if has else 'no '}{what}, and its adapter_config.json "
                f"says {key}={str(told).lower()}",
                hint=DIFFERENT,
            )
