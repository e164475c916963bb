"""What is not packed: buffers that no checkpoint has and transformers makes, weights that stay dense."""

from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.loading.test_loader import loaded
from tests.quant.rounded import difference, logits


@pytest.mark.parametrize("kind", [*tiny.CONFIGS, *tiny.PAIRS])
def test_what_is_not_packed_is_the_same_beside_packed_weights(tmp_path: Path, kind: str) -> None:
    folder = tiny.folder(tmp_path / "m", kind)
    dense = loaded(folder).model
    wanted, weights = dict(dense.named_buffers()), dict(dense.named_parameters())
    for bits in ("int8", "int4"):
        packed = loaded(folder, quantization=bits).model
        found = dict(packed.named_buffers())
        # What a table is multiplied by goes into the packed table.
        missing = {name for name in wanted.keys() - found.keys() if not name.endswith("embed_scale")}
        assert not missing
        assert not found.keys() - wanted.keys()
        wrong = [name for name, buffer in found.items() if not torch.equal(buffer, wanted[name])]
        left = {name: weight for name, weight in packed.named_parameters() if weight.numel() > 0}
        assert left
        wrong += [name for name, weight in left.items() if not torch.equal(weight, weights[name])]
        assert not wrong, bits


def test_falcon_h1_says_the_same_with_packed_weights(tmp_path: Path) -> None:
    folder = tiny.folder(tmp_path / "m", "falcon_h1", initializer_range=0.1)
    dense, packed = (loaded(folder, quantization=bits, dtype="float32").model for bits in (None, "int8"))
    assert difference(logits(packed), logits(dense)) < 0.1
