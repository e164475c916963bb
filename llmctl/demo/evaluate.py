"""Scores a demo model on the held-out set, greedily: `python -m llmctl.demo.evaluate DIR`."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from llmctl.demo.heldout import AnswerMany, Message, cases, play, score_many

log = logging.getLogger("llmctl.demo.evaluate")
MOST_NEW_TOKENS = 200
BATCH = 128


def load(folder: Path, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer from a folder, without any network."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model.eval(), tokenizer


def answerer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> AnswerMany:
    """A function that answers many conversations at once, greedily, in batches padded on the left."""

    @torch.inference_mode()
    def some(talks: list[list[Message]]) -> list[str]:
        texts = [
            tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True) for talk in talks
        ]
        batch = tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            max_new_tokens=MOST_NEW_TOKENS,
        )
        new = ids[:, batch["input_ids"].shape[1] :]
        return [str(text) for text in tokenizer.batch_decode(new, skip_special_tokens=True)]

    def many(talks: list[list[Message]]) -> list[str]:
        return [text for at in range(0, len(talks), BATCH) for text in some(talks[at : at + BATCH])]

    return many


def main() -> None:
    """Command line: the model's folder, the number format, and whether to show the failures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--failures", action="store_true", help="log every case that fails")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    begin = time.monotonic()
    answer = answerer(*load(args.folder, getattr(torch, args.dtype)))
    for skill, share in score_many(answer).items():
        log.info("%-9s %5.1f %%", skill, 100 * share)
    log.info("%s, %.0f s", args.dtype, time.monotonic() - begin)
    if args.failures:
        chosen = cases()
        for case, text in zip(chosen, play(chosen, answer), strict=True):
            if not case.check(text):
                log.info("%s %s -> %r", case.skill, [message["content"] for message in case.messages], text)


if __name__ == "__main__":
    main()
