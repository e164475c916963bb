"""The text generator is seeded, its rows are right, and the held-out set is apart from it."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from transformers import AutoTokenizer

from llmctl.demo import MODELS
from llmctl.demo.corpus import conversation, document
from llmctl.demo.corpus.capitals import CAPITALS
from llmctl.demo.corpus.grammar import ask, expand, normalise
from llmctl.demo.corpus.story import tell
from llmctl.demo.corpus.words import NAMES, THINGS
from llmctl.demo.heldout import cases, has, play, score
from llmctl.demo.heldout_data import NAMES as UNSEEN_NAMES
from llmctl.demo.rows import IGNORED, Encoder, batches, held_out, pieces

SAMPLE = 20_000


def test_generator_is_deterministic() -> None:
    """One seed gives one text, another seed another."""
    first, second, other = ([conversation(random.Random(seed)) for _ in range(20)] for seed in (1, 1, 2))
    assert first == second != other
    assert document(random.Random(3)) == document(random.Random(3))


def test_conversations_are_well_formed() -> None:
    """Roles alternate, nothing is empty and nothing is left unfilled."""
    rng = random.Random(4)
    for _ in range(2000):
        messages = conversation(rng)
        roles = [m["role"] for m in messages if m["role"] not in ("system", "tool")]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(m["content"].strip() for m in messages)
        assert not any(
            mark in m["content"] for m in messages for mark in ("{", "}", "<n>", "<c>", "<k>", "<t>")
        )


def test_grammar_expands_inside_out() -> None:
    """Every alternative can come, and case noise leaves slots alone."""
    rng = random.Random(0)
    assert {expand(rng, "{a|b {c|d}}") for _ in range(100)} == {"a", "b c", "b d"}
    assert all("Ximena" in ask(rng, ("hello <n>",), {"n": "Ximena"}) for _ in range(300))


def test_stories_keep_their_promise() -> None:
    """Each plot has 30 to 120 words and no sentence twice."""
    rng = random.Random(5)
    for _ in range(500):
        kind = rng.choice(tuple(THINGS))
        text = tell(rng, rng.choice(NAMES), kind, THINGS[kind][0])
        assert 30 <= len(text.split()) <= 120
        sentences = text.split(". ")
        assert len(set(sentences)) == len(sentences)


def test_held_out_is_large_and_balanced() -> None:
    """At least 330 cases, at least 30 of each of the nine skills."""
    counts = Counter(case.skill for case in cases())
    assert sum(counts.values()) >= 330
    assert len(counts) == 9
    assert min(counts.values()) >= 30


def test_held_out_is_apart_from_the_generator() -> None:
    """No held-out message comes out of what is trained on."""
    rng = random.Random(6)
    forbidden = held_out()
    made = {
        normalise(m["content"]) for _ in range(SAMPLE) for m in conversation(rng) if m["role"] != "assistant"
    }
    assert len(made & forbidden) <= 2, "chance hits, which rows.pieces() leaves out, must stay rare"
    assert not set(UNSEEN_NAMES) & set(NAMES)


def test_rows_leave_out_what_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conversation with a held-out message is skipped."""
    encoder = Encoder(AutoTokenizer.from_pretrained(MODELS["demo"], local_files_only=True))
    bad = next(iter(sorted(held_out())))
    talks = iter([[{"role": "user", "content": bad}], [{"role": "user", "content": "zzz"}]])
    monkeypatch.setattr("llmctl.demo.rows.conversation", lambda rng, long, mixture: next(talks))
    piece = next(pieces(encoder, random.Random(0), "chat", False, 256))
    assert piece == encoder.conversation([{"role": "user", "content": "zzz"}])


def test_rows_teach_only_what_the_assistant_says() -> None:
    """Targets decode to the answers, rows match the chat template, and documents cannot see each other."""
    tokenizer = AutoTokenizer.from_pretrained(MODELS["demo"], local_files_only=True)
    encoder = Encoder(tokenizer)
    messages = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hi, 12 friends."}]
    piece = encoder.conversation(messages)
    assert tokenizer.decode(piece.ids) == tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode([i for i in piece.targets if i != IGNORED]) == "Hi, 12 friends.<|im_end|>"
    batch = next(batches(pieces(encoder, random.Random(1), "chat", False, 256), 256, 2))
    assert batch.ids.shape == (2, 256)
    mask = batch.mask()[0, 0]
    assert torch.equal(mask, mask.tril())
    end = int((batch.owner[0] == 0).sum())
    assert not mask[end:, :end].any()


def test_score_counts_live_turns() -> None:
    """The score asks turn by turn, hands back the model's own answers, and is strict."""
    chosen = cases()
    perfect = [case for case in chosen if case.skill == "capitals"]
    lookup = score(
        lambda talk: next((c for land, c in CAPITALS.items() if has(talk[-1]["content"], land)), ""), perfect
    )
    assert lookup == {"capitals": 1.0, "all": 1.0}
    assert score(lambda talk: "Paris Berlin Rome.")["all"] < 0.05
    assert score(lambda talk: "")["all"] == 0
    memory = [case for case in chosen if case.skill == "memory"]
    seen: list[int] = []
    play(memory, lambda talks: seen.extend(len(talk) for talk in talks) or ["ok"] * len(talks))
    assert max(seen) == 7
