"""One weight of a GPTQ checkpoint: its parts checked against each other and the config, and put together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmctl.core.errors import BadFileError
from llmctl.quant.formats.base import bad, is_whole
from llmctl.quant.formats.packing import WORD_BITS, unpack_bits
from llmctl.quant.formats.settings import Settings
from llmctl.quant.weights import SYMMETRIC_ZERO, IntWeight, pack4

_ROWS_AT_ONCE = 1024
# GPTQModel moves a whole word of zero points at once, so a borrow runs on into the next of them.
_WORD_OF_ONES: Mapping[int, Sequence[int]] = {2: (0x55555555,), 4: (0x11111111,), 8: (0x01010101,)}
# Its older releases took these words for 3 bits, which are the right ones in the wrong order.
_OLD_WORDS_OF_3_BITS = (0x24924924, 0x92492492, 0x49249249)


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight's parts and what holds for them. K inputs, N outputs, G groups, R rows of words."""

    name: str
    parts: Mapping[str, Tensor]
    """qweight int32 [R, N], qzeros int32 [G, words], scales [G, N], perhaps g_idx [K]."""
    settings: Settings

    @property
    def bits(self) -> int:
        """As they are stored."""
        return self.settings.integer("bits")

    @property
    def num_rows(self) -> int:
        """N."""
        return self.parts["qweight"].shape[1]

    @property
    def num_columns(self) -> int:
        """K."""
        if "g_idx" in self.parts:
            return self.parts["g_idx"].numel()
        return self.parts["qweight"].shape[0] * WORD_BITS // self.bits

    @property
    def num_groups(self) -> int:
        """G."""
        return self.parts["scales"].shape[0]

    @property
    def group_size(self) -> int:
        """Of all groups but perhaps the last."""
        given = self.settings.integer("group_size")
        return self.num_columns if given == -1 else min(given, self.num_columns)

    def check_shapes(self) -> None:
        """Raise unless the parts are of one weight, and of the bits and groups of the config."""
        qweight, qzeros, scales = (self.parts[role] for role in ("qweight", "qzeros", "scales"))
        if qweight.dtype != torch.int32 or qzeros.dtype != torch.int32 or not scales.is_floating_point():
            raise bad(self.name, "its parts are not of the types int32, int32 and float")
        if "g_idx" in self.parts and not is_whole(self.parts["g_idx"]):
            raise bad(self.name, f"its g_idx is of type {self.parts['g_idx'].dtype}, not of whole numbers")
        shapes = [tuple(part.shape) for part in (qweight, qzeros, scales)]
        if (
            any(len(shape) != 2 or 0 in shape for shape in shapes)
            or len({shape[0] for shape in shapes[1:]}) > 1
        ):
            raise bad(self.name, f"qweight, qzeros and scales have the shapes {', '.join(map(str, shapes))}")
        if scales.shape[1] != self.num_rows:
            raise bad(self.name, f"it has scales for {scales.shape[1]} outputs, qweight for {self.num_rows}")
        if qzeros.shape[1] != -(-self.num_rows * self.bits // WORD_BITS):
            found = qzeros.shape[1] * WORD_BITS / self.num_rows
            raise self.settings.disagreement(self.name, "bits", f"its qzeros has {found:g} bits a number")
        if qweight.shape[0] != -(-self.num_columns * self.bits // WORD_BITS):
            held = qweight.shape[0] * WORD_BITS // self.bits
            raise bad(self.name, f"its g_idx is of {self.num_columns} inputs, its qweight of {held}")
        if self.num_groups != -(-self.num_columns // self.group_size):
            found_groups = f"it has {self.num_groups} groups for {self.num_columns} inputs"
            raise self.settings.disagreement(self.name, "group_size", found_groups)

    def groups(self) -> Tensor | None:
        """The group of each input, int64 [K]; None where each follows its neighbour, as without act-order."""
        stored, is_ordered = self.parts.get("g_idx"), not self.settings.flag("desc_act")
        if stored is None:
            if is_ordered or self.num_groups == 1:
                return None
            raise self.settings.disagreement(self.name, "desc_act", "it has no g_idx")
        groups = stored.flatten().long()
        if bool((groups < 0).any()) or bool((groups >= self.num_groups).any()):
            found = int(groups.max()) if bool((groups >= 0).all()) else int(groups.min())
            raise bad(self.name, f"its g_idx names the group {found} of {self.num_groups}")
        plain = self._plain_groups()
        # Early tools left it at zero when there was nothing to reorder.
        if torch.equal(groups, plain) or (is_ordered and not bool(groups.any())):
            return None
        sizes, expected = groups.bincount(minlength=self.num_groups), plain.bincount()
        if not torch.equal(sizes, expected):
            group = int((sizes != expected).nonzero()[0])
            what = f"its g_idx puts {int(sizes[group])} inputs into the group {group}"
            raise bad(self.name, f"{what}, which has {int(expected[group])}")
        return groups

    def _plain_groups(self) -> Tensor:
        return torch.arange(self.num_columns) // self.group_size

    @property
    def is_uneven(self) -> bool:
        """Whether the weight cannot be cut into groups of one size, whatever their order."""
        return self.num_columns % self.group_size != 0 or self.num_columns % 2 != 0

    def words(self) -> Tensor:
        """qweight as int32 [N, R], the numbers of an output side by side."""
        return self.parts["qweight"].t().contiguous()

    def zeros(self) -> Tensor:
        """The zero points, uint8 [G, N]."""
        words = self.parts["qzeros"]
        if self.settings.text("checkpoint_format", "gptq") == "gptq_v2":
            zeros = unpack_bits(words, self.bits, self.num_rows)
        else:
            zeros = self._zeros_of_v1(words)
        if self.settings.flag("sym") and not self._is_centred(zeros):
            older = self._older_zeros(words)
            if older is None:
                what = f"its zero points are not all {1 << self.bits - 1} (is checkpoint_format right?)"
                raise self.settings.disagreement(self.name, "sym", what)
            return older
        return zeros

    def _zeros_of_v1(self, words: Tensor) -> Tensor:
        # Version 1 stores one less. All ones are therefore 0, not 16 at 4 bits: quantisers clamp zero points
        # to what the numbers can be, and AutoGPTQ and GPTQModel mask after they add one. vLLM's and ExLlama's
        # kernels do not, and read such a file otherwise than its maker did.
        if self._is_of_gptqmodel and self.bits in _WORD_OF_ONES:
            return unpack_bits(_plus(words, _WORD_OF_ONES[self.bits]), self.bits, self.num_rows)
        if (
            self._is_of_gptqmodel
            and not self.settings.flag("sym")
            and "checkpoint_format" not in self.settings.chosen
        ):
            raise BadFileError(
                f"the zero points of {self.name} (3 bits, asymmetric, of GPTQModel) may be of either of two "
                "layouts that its releases wrote under one name",
                hint="if a release of 2026 or later made it: --quant-config checkpoint_format=gptq",
            )
        return unpack_bits(words, self.bits, self.num_rows).add_(1).bitwise_and_((1 << self.bits) - 1)

    def _older_zeros(self, words: Tensor) -> Tensor | None:
        """Zero points as older releases of GPTQModel wrote them for 3 bits; None where they are not that."""
        if self.bits != 3 or self.settings.text("checkpoint_format", "gptq") != "gptq":
            return None
        zeros = unpack_bits(_plus(words, _OLD_WORDS_OF_3_BITS), self.bits, self.num_rows)
        return zeros if self._is_centred(zeros) else None

    @property
    def _is_of_gptqmodel(self) -> bool:
        meta = self.settings.values.get("meta")
        return isinstance(meta, Mapping) and "gptqmodel" in str(meta.get("quantizer")).lower()

    def _is_centred(self, zeros: Tensor) -> bool:
        return bool((zeros == 1 << self.bits - 1).all())

    def quantised(self, groups: Tensor | None) -> IntWeight:
        """In the canonical form, 2 and 3 bits widened to 4."""
        bits = 8 if self.bits == 8 else 4
        # Numbers and zero points move by the same amount, so that the middle is the canonical one.
        shift = SYMMETRIC_ZERO[bits] - (1 << self.bits - 1)
        zero = self.zeros().t().to(torch.int16).add_(shift).contiguous()
        permutation = None if groups is None else torch.argsort(groups, stable=True)
        if self.bits == 4 and permutation is None:
            # Four bits each, the first in the lowest: that is `pack4` already.
            values = self.words().view(torch.uint8)[:, : self.num_columns // 2]
        else:
            numbers = unpack_bits(self.words(), self.bits, self.num_columns)
            if permutation is not None:
                numbers = numbers.index_select(1, permutation)
            # 128 less, as a signed number, has the top bit turned over.
            numbers = numbers.bitwise_xor_(0x80) if bits == 8 else numbers.add_(shift)
            values = numbers.view(torch.int8) if bits == 8 else pack4(numbers)
        return IntWeight(
            bits=bits,
            values=values.contiguous(),
            scale=self.parts["scales"].t().float().contiguous(),
            zero=None if self.settings.flag("sym") else zero,
            permutation=permutation,
        )

    def dense(self, groups: Tensor | None, dtype: torch.dtype) -> Tensor:
        """[N, K] in `dtype`, a block of rows at a time."""
        if groups is None:
            groups = self._plain_groups()
        words, zeros, scales = self.words(), self.zeros().t().float(), self.parts["scales"].t().float()
        weight = torch.empty(self.num_rows, self.num_columns, dtype=dtype)
        for start in range(0, self.num_rows, _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            numbers = unpack_bits(words[rows], self.bits, self.num_columns).float()
            weight[rows] = (numbers - zeros[rows].index_select(1, groups)) * scales[rows].index_select(
                1, groups
            )
        return weight


def _plus(words: Tensor, ones: Sequence[int]) -> Tensor:
    """`ones` added to the words of each row in turn, over and over; what runs out of a word is lost."""
    repeated = torch.tensor(ones, dtype=torch.int64).repeat(-(-words.shape[1] // len(ones)))[: words.shape[1]]
    return words + repeated.to(torch.int32)
