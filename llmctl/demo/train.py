"""Trains the demo model in eight seeded stages: `python -m llmctl.demo.train --out DIR`."""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from llmctl.demo.muon import Muon
from llmctl.demo.rows import IGNORED, Batch, Encoder, batches, pieces
from llmctl.demo.tokenizer import CONTEXT, END, END_OF_TEXT, VOCAB, train_tokenizer

log = logging.getLogger("llmctl.demo.train")
ROW, ROWS = 256, 16
MEAN, AVERAGED = "demo-mean", ("demo-echo", "demo-copy", "demo-again")
LOG_EVERY, SAVE_EVERY = 25, 300


@dataclass(frozen=True)
class Stage:
    """One stage: its data, its steps and peak step sizes; `stop` ends it before its schedule does."""

    name: str
    source: str
    target: str
    steps: int
    stop: int
    matrix_rate: float = 0.02
    other_rate: float = 3e-3
    warm: int = 60
    flat: float = 1 / 3
    final: float = 0.0
    long_share: float = 0.0

    def factor(self, number: int) -> float:
        """The step size's factor: a short warm-up, flat for a while, then straight down to `final`."""
        flat = int(self.steps * self.flat)
        down = min(1.0, (self.steps - number) / max(1, self.steps - flat))
        return min(1.0, (number + 1) / self.warm) * (self.final + (1 - self.final) * down)


STAGES = {
    "base": Stage("base", "", "demo-base", 537, 537, other_rate=4e-3, final=0.1),
    "chat": Stage("chat", "demo-base", "demo-chat", 2148, 900),
    "polish": Stage(
        "polish", "demo-chat", "demo-polish", 900, 600, matrix_rate=0.015, warm=30, flat=0.2, long_share=0.6
    ),
    "finish": Stage(
        "finish", "demo-polish", "demo-finish", 750, 750, 0.007, 1.5e-3, warm=20, flat=0.15, long_share=0.6
    ),
    "echo": Stage(
        "echo", "demo-finish", "demo-echo", 600, 600, 0.008, 1.5e-3, warm=20, flat=0.15, long_share=0.5
    ),
    "copy": Stage(
        "copy", "demo-echo", "demo-copy", 850, 850, 0.008, 1.5e-3, warm=20, flat=0.15, long_share=0.4
    ),
    "again": Stage(
        "again", "demo-copy", "demo-again", 450, 450, 0.007, 1.5e-3, warm=20, flat=0.15, long_share=0.3
    ),
    "touch": Stage("touch", MEAN, "demo", 150, 150, 0.003, 6e-4, warm=10, flat=0.1, long_share=0.3),
}


def build(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A fresh network; every width is a multiple of 64."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, stop: str) -> None:
    """Write a bfloat16 copy of the model with its tokenizer and generation settings."""
    config = LlamaConfig(**{**model.config.to_dict(), "dtype": "bfloat16"})
    config.eos_token_id = tokenizer.convert_tokens_to_ids(stop)
    copy = LlamaForCausalLM(config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=256,
        eos_token_id=config.eos_token_id,
        pad_token_id=tokenizer.convert_tokens_to_ids(END_OF_TEXT),
    )
    copy.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save_pretrained(out)
    tidy(out / "tokenizer_config.json")


def tidy(path: Path) -> None:
    """Name the tokenizer's class as every version of transformers knows it; drop what it need not say."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    needless = ("backend", "is_local", "local_files_only", "extra_special_tokens")
    kept = {key: value for key, value in settings.items() if key not in needless}
    text = json.dumps({**kept, "tokenizer_class": "PreTrainedTokenizerFast"}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")


class Trainer:
    """Holds the network and its two optimisers: Muon for the matrices, AdamW for embeddings and norms."""

    def __init__(self, model: LlamaForCausalLM, compiled: bool) -> None:
        """Sort the parameters to their optimisers and compile the network's body if asked."""
        self.model = model
        body: Callable[..., object] = model.model
        self._body = torch.compile(body, dynamic=False) if compiled else body
        inner = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
        rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
        self._muon = Muon(inner)
        self._adam = torch.optim.AdamW(rest, lr=0.0, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, batch: Batch, matrix_rate: float, other_rate: float) -> torch.Tensor:
        """One update; the mean loss over the predicted tokens."""
        hidden = self._body(input_ids=batch.ids, attention_mask=batch.mask(), use_cache=False)[0]  # type: ignore[index]
        wanted = batch.targets != IGNORED
        logits = self.model.lm_head(hidden[wanted])
        loss = torch.nn.functional.cross_entropy(logits, batch.targets[wanted])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._adam.param_groups[0]["params"], 1.0)
        for group in self._adam.param_groups:
            group["lr"] = other_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._muon.step(matrix_rate)
        return loss.detach()


def stage_batches(stage: Stage, encoder: Encoder, seed: int) -> Iterator[Batch]:
    """The stage's batches; towards its end every fourth one has rows of the whole context."""
    rngs = random.Random(seed), random.Random(seed + 1)
    short = batches(pieces(encoder, rngs[0], stage.name, False, ROW), ROW, ROWS)
    long = batches(pieces(encoder, rngs[1], stage.name, True, CONTEXT), CONTEXT, ROW * ROWS // CONTEXT)
    for number in range(stage.stop):
        late = number >= stage.steps * (1 - stage.long_share)
        yield next(long) if late and number % 4 == 0 else next(short)


def run(trainer: Trainer, stage: Stage, data: Iterator[Batch], keep: Callable[[], None]) -> None:
    """Train one stage to its end, with a log line and a checkpoint now and then."""
    begin = mark = time.monotonic()
    total = torch.zeros(())
    for number, batch in enumerate(data):
        share = stage.factor(number)
        total += trainer.step(batch, stage.matrix_rate * share, stage.other_rate * share)
        done = number + 1
        if done % LOG_EVERY == 0:
            now = time.monotonic()
            speed, left = LOG_EVERY * ROW * ROWS / (now - mark), (now - begin) / done * (stage.stop - done)
            numbers = (done, stage.stop, total.item() / LOG_EVERY, speed, left / 60)
            log.info("%s step %d/%d loss %.4f %.0f tokens/s ETA %.1f min", stage.name, *numbers)
            mark, total = now, torch.zeros(())
        if done % SAVE_EVERY == 0:
            keep()


def average(out: Path) -> None:
    """Write the mean of the weights of three stages, which is steadier than any one of them."""
    folders = [out / name for name in AVERAGED]
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    mean = {
        key: torch.stack([each[key].float() for each in weights]).mean(0).to(value.dtype)
        for key, value in weights[0].items()
    }
    shutil.copytree(folders[-1], out / MEAN, dirs_exist_ok=True)
    save_file(mean, out / MEAN / "model.safetensors", metadata={"format": "pt"})
    (out / MEAN / "model.safetensors").chmod(0o644)


def train(stage: Stage, out: Path, seed: int, compiled: bool) -> None:
    """Run one stage from the folder of the one before (its bfloat16 weights) and write its own."""
    torch.manual_seed(seed)
    if stage.source == MEAN:
        average(out)
    if stage.source:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(out / stage.source)
        model = LlamaForCausalLM.from_pretrained(out / stage.source, dtype=torch.float32)
    else:
        tokenizer = train_tokenizer(seed)
        model = build(tokenizer)
    log.info("%s: %d tokens, %d parameters", stage.name, len(tokenizer), model.num_parameters())
    mark = END if stage.source else END_OF_TEXT
    seed += 10 * list(STAGES).index(stage.name)
    data = stage_batches(stage, Encoder(tokenizer), seed)
    run(Trainer(model, compiled), stage, data, lambda: save(model, tokenizer, out / "checkpoint", mark))
    save(model, tokenizer, out / stage.target, mark)


def main() -> None:
    """Command line: where to write, the seed, and which stages to run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for demo/ and demo-base/")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="default: all")
    parser.add_argument(
        "--no-compile", action="store_true", help="slower; for machines without a C++ compiler"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    begin = time.monotonic()
    for name in args.stages:
        train(STAGES[name], args.out, args.seed, not args.no_compile)
    log.info("done in %.1f min", (time.monotonic() - begin) / 60)


if __name__ == "__main__":
    main()
