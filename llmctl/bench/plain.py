"""What llmctl is compared with: `generate` of transformers over the same model, greedy, in bfloat16."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

Prompt = Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast one call of `generate` was."""

    first_token_s: float
    """From the call to the first token of every sequence."""
    decode_rate: float
    """Tokens a second of all sequences together from then on; 0 where there was but one token each."""


class Plain:
    """A transformers model that generates by itself; it must not be the engine's."""

    def __init__(self, model: Any) -> None:
        self._model = model
        # The model's own would end answers early, or draw them.
        model.generation_config = transformers.GenerationConfig()

    def generate(self, prompts: Sequence[Prompt], num_new: int) -> Speed:
        """Answer prompts of one length with `num_new` tokens each."""
        ids = torch.tensor(prompts, device=self._model.device)
        clock = _Clock()
        config = transformers.GenerationConfig(do_sample=False, max_new_tokens=num_new, pad_token_id=0)
        begin = time.perf_counter()
        with torch.no_grad():
            self._model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config, streamer=clock
            )
        _, first, *_ = clock.times
        last, num_steps = clock.times[-1], len(clock.times) - 2
        rate = num_steps * len(prompts) / (last - first) if num_steps else 0.0
        return Speed(first_token_s=first - begin, decode_rate=rate)


class _Clock:
    """A streamer of transformers that notes when the prompt and each token came."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is held back."""
