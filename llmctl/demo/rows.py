"""Rows of token ids for training: documents packed side by side, each attending only to itself."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerFast

from llmctl.demo.corpus import (
    AGAIN,
    CHAT,
    COPY,
    ECHO,
    FINISH,
    POLISH,
    TOUCH,
    Message,
    conversation,
    document,
    drill,
)
from llmctl.demo.corpus.grammar import normalise
from llmctl.demo.heldout import cases
from llmctl.demo.tokenizer import END, END_OF_TEXT, START

IGNORED = -100
POOL = 96
MIXTURES = {
    "chat": CHAT,
    "polish": POLISH,
    "finish": FINISH,
    "echo": ECHO,
    "copy": COPY,
    "again": AGAIN,
    "touch": TOUCH,
}
DRILLS = {"polish": 0.2, "finish": 0.06}


@dataclass(frozen=True)
class Piece:
    """One document: its ids and, for each position, the id to predict (IGNORED where none is)."""

    ids: list[int]
    targets: list[int]


@dataclass(frozen=True)
class Batch:
    """Rows of equal length: ids, targets, and which document each position belongs to."""

    ids: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor

    def mask(self) -> torch.Tensor:
        """Who may look at whom: earlier positions of the same document (batch, 1, row, row)."""
        same = self.owner[:, :, None] == self.owner[:, None, :]
        return torch.ones_like(same[0]).tril().logical_and(same)[:, None]


class Encoder:
    """Turns documents and conversations into pieces."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Look up the special ids once."""
        self._inner = tokenizer.backend_tokenizer
        self._text, self._start, self._end = (
            self._inner.token_to_id(mark) for mark in (END_OF_TEXT, START, END)
        )
        self._newline = self._encode("\n")
        self._heads = {role: self._encode(f"{role}\n") for role in ("system", "user", "assistant", "tool")}

    def _encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        return list(self._inner.encode(text, add_special_tokens=False).ids)

    def document(self, text: str) -> Piece:
        """A plain text: every token is predicted, and the end too."""
        ids = [*self._encode(text), self._text]
        return Piece(ids, [*ids[1:], IGNORED])

    def conversation(self, messages: list[Message]) -> Piece:
        """A conversation: only what the assistant says is predicted, its end mark included."""
        ids: list[int] = []
        said: list[bool] = []
        for message in messages:
            head = [self._start, *self._heads[message["role"]]]
            body = [*self._encode(message["content"]), self._end]
            ids += head + body + self._newline
            mine = message["role"] == "assistant"
            said += [False] * len(head) + [mine] * len(body) + [False] * len(self._newline)
        targets = [token if keep else IGNORED for token, keep in zip(ids[1:], said[1:], strict=True)]
        return Piece(ids, [*targets, IGNORED])


def held_out() -> frozenset[str]:
    """Every message of the held-out set, normalised: texts that contain one of them are not trained on."""
    return frozenset(normalise(message["content"]) for case in cases() for message in case.messages)


def pieces(encoder: Encoder, rng: random.Random, stage: str, long: bool, row: int) -> Iterator[Piece]:
    """Endless documents (base) or conversations (other stages) that fit into a row and are not held out."""
    forbidden = held_out()
    while True:
        drills = stage in DRILLS and rng.random() < DRILLS[stage]
        if stage in MIXTURES and not drills:
            messages = conversation(rng, long and rng.random() < 0.7, MIXTURES[stage])
            said, piece = [message["content"] for message in messages], encoder.conversation(messages)
        else:
            text = drill(rng) if drills else document(rng)
            said, piece = [line.partition(": ")[2] for line in text.splitlines()], encoder.document(text)
        if len(piece.ids) <= row and not any(normalise(line) in forbidden for line in said if line):
            yield piece


def _fill_row(pool: list[Piece], source: Iterator[Piece], row: int) -> list[Piece]:
    """Choose pieces for one row: the oldest first, then whatever is largest and still fits."""
    while len(pool) < POOL:
        pool.append(next(source))
    chosen = [pool.pop(0)]
    room = row - len(chosen[0].ids)
    while True:
        best = max((p for p in pool if len(p.ids) <= room), key=lambda p: len(p.ids), default=None)
        if best is None:
            return chosen
        pool.remove(best)
        chosen.append(best)
        room -= len(best.ids)


def batches(source: Iterator[Piece], row: int, count: int) -> Iterator[Batch]:
    """Endless batches of `count` rows of `row` tokens."""
    pool: list[Piece] = []
    while True:
        ids = torch.zeros(count, row, dtype=torch.long)
        targets = torch.full((count, row), IGNORED)
        owner = torch.full((count, row), -1)
        for line in range(count):
            at = 0
            for number, piece in enumerate(_fill_row(pool, source, row)):
                end = at + len(piece.ids)
                ids[line, at:end] = torch.tensor(piece.ids)
                targets[line, at:end] = torch.tensor(piece.targets)
                owner[line, at:end] = number
                at = end
        yield Batch(ids, targets, owner)
