"""Checkpoints that others quantised, through the whole way of loading: computed with as they are meant.

The packers are the tests' own (`tests/quant/formats`) and share no code with the readers.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from llmctl.core.progress import SilentProgress
from llmctl.loading.loader import LoadRequest, load
from llmctl.loading.planning.plan import PlanRequest
from llmctl.quant.experts import QuantExperts
from llmctl.quant.kernels import Kernel
from llmctl.quant.modules import QuantLinear
from tests import tiny
from tests.quant.formats import packers_awq, packers_bnb, packers_ct, packers_fp8, packers_gptq, packers_mxfp4

Pack = Callable[[Path, Path], dict[str, Tensor]]

KINDS = ("llama", "qwen2", "mixtral", "gpt2")
INTEGERS: dict[str, Pack] = {
    "gptq": packers_gptq.pack_folder,
    **{
        f"gptq {bits} bits": lambda source, target, bits=bits: packers_gptq.pack_folder(
            source, target, bits=bits
        )
        for bits in (2, 3, 8)
    },
    "gptq asymmetric": lambda source, target: packers_gptq.pack_folder(source, target, sym=False),
    "gptq act-order": lambda source, target: packers_gptq.pack_folder(
        source, target, sym=False, desc_act=True, group_size=16
    ),
    "gptq v2": lambda source, target: packers_gptq.pack_folder(source, target, sym=False, is_v2=True),
    "gptq one group": lambda source, target: packers_gptq.pack_folder(source, target, group_size=-1),
    "gptq without config": lambda source, target: packers_gptq.pack_folder(source, target, is_legacy=True),
    "awq": lambda source, target: packers_awq.pack_folder(source, target, group_size=16),
    "awq of llm-awq": lambda source, target: packers_awq.pack_folder(source, target, is_legacy=True),
    "compressed-tensors int4": lambda source, target: packers_ct.pack_folder(source, target, group_size=16),
    "compressed-tensors int8": lambda source, target: packers_ct.pack_folder(
        source, target, bits=8, format="int-quantized", strategy="channel"
    ),
    "compressed-tensors asymmetric": lambda source, target: packers_ct.pack_folder(
        source, target, group_size=16, is_symmetric=False
    ),
    "compressed-tensors act-order": lambda source, target: packers_ct.pack_folder(
        source, target, group_size=16, has_order=True
    ),
    **{
        f"bitsandbytes {kind}": lambda source, target, kind=kind: packers_bnb.pack_folder(
            source, target, kind=kind
        )
        for kind in ("nf4", "fp4", "int8")
    },
    "bitsandbytes nf4, scales quantised": lambda source, target: packers_bnb.pack_folder(
        source, target, is_double=True
    ),
}
FLOATS: dict[str, Pack] = {
    **{
        f"fp8 {layout}": lambda source, target, layout=layout: packers_fp8.pack_folder(
            source, target, layout=layout
        )
        for layout in ("tensor", "row", "block")
    },
    "fp8 static": lambda source, target: packers_fp8.pack_folder(source, target, scheme="static"),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {kind: tiny.folder(folder / kind, kind) for kind in KINDS}


def loaded(folder: Path, **wishes: Any) -> Any:
    plan = PlanRequest(device="cpu", dtype="float32", **wishes)
    return load(LoadRequest(model=str(folder), plan=plan), SilentProgress()).model


def both(pack: Pack, source: Path, tmp_path: Path) -> tuple[Any, Any]:
    """The packed model, and the dense one that it stands for."""
    dense = pack(source, tmp_path / "packed")
    plain = Path(shutil.copytree(source, tmp_path / "dense"))
    tensors = {name: tensor.contiguous() for name, tensor in dense.items()}
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    return loaded(tmp_path / "packed"), loaded(plain)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.arange(3, 40)[None]).logits
    return found


def weights_of(packed: Any, dense: Any) -> Iterator[tuple[tuple[str, str], tuple[Tensor, Tensor]]]:
    """By path and kernel: what each kernel multiplies by, asked for column by column, and what it should."""
    for path, module in packed.named_modules():
        plain = dense.get_submodule(path)
        if isinstance(module, QuantLinear) and module.kernel is not None:
            want = plain.weight.T if isinstance(plain, Conv1D) else plain.weight
            yield (path, module.kernel.title), (multiplied(module.kernel, want), want)
        if isinstance(module, QuantExperts):
            for name, kernels in module.kernels.items():
                for index, (kernel, stored) in enumerate(zip(kernels, getattr(plain, name), strict=True)):
                    want = stored.T if plain.is_transposed else stored
                    yield (f"{path}.{name}.{index}", kernel.title), (multiplied(kernel, want), want)


def multiplied(kernel: Kernel, like: Tensor) -> Tensor:
    with torch.no_grad():
        return kernel(torch.eye(like.shape[-1]), None).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_checkpoint_is_computed_with_as_it_is(
    name: str, kind: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    packed, dense = both(INTEGERS[name], sources[kind], tmp_path)
    kernels = dict(weights_of(packed, dense))
    assert len(kernels) >= 4
    for got, want in kernels.values():
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    # 8 bits in one group of a row multiply 8-bit activations; every other path is exact.
    is_rounding = any("activations" in title for _, title in kernels)
    error = (logits(packed) - logits(dense)).norm() / logits(dense).norm()
    assert error < (0.3 if is_rounding else 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FLOATS)
def test_an_fp8_checkpoint_is_loaded_to_the_bit(
    name: str, kind: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    packed, dense = both(FLOATS[name], sources[kind], tmp_path)
    want = dense.state_dict()
    assert all(torch.equal(tensor, want[key]) for key, tensor in packed.state_dict().items())


def test_an_fp8_checkpoint_may_be_packed_in_fewer_bits_on_the_way(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    packers_fp8.pack_folder(sources["llama"], tmp_path / "packed")
    model = loaded(tmp_path / "packed", quantization="int8")
    assert sum(isinstance(module, QuantLinear) for module in model.modules()) == 15


def test_mxfp4_experts_of_gpt_oss_compute_with_what_they_stand_for(tmp_path: Path) -> None:
    source = packers_mxfp4.gpt_oss_folder(tmp_path / "source")
    packed, dense = both(packers_mxfp4.pack_folder, source, tmp_path)
    kernels = dict(weights_of(packed, dense))
    assert any("experts" in path for path, _ in kernels)
    for got, want in kernels.values():
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert (logits(packed) - logits(dense)).norm() / logits(dense).norm() < 0.3


def test_a_module_may_have_its_own_bits_or_stay_dense(sources: dict[str, Path], tmp_path: Path) -> None:
    dynamic = {r"+:.*down_proj": {"bits": 8, "group_size": 16}, r"-:.*layers\.0\..*q_proj": {}}

    def pack(source: Path, target: Path) -> dict[str, Tensor]:
        return packers_gptq.pack_folder(source, target, dynamic=dynamic)

    packed, dense = both(pack, sources["llama"], tmp_path)
    torch.testing.assert_close(logits(packed), logits(dense), rtol=1e-4, atol=1e-4)
    assert packed.model.layers[0].self_attn.q_proj.weight.shape == (32, 32)
