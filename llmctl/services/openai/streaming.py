"""Deltas into the events of a stream: what never changes is written once, and only text each time.

Per choice an opening chunk, then pieces, then one chunk with the finish reason and nothing else; after all
choices the counts of tokens, when asked for, and `[DONE]`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from llmctl.core.types import Delta
from llmctl.services.http.events import DONE
from llmctl.services.openai.calls import Delivery
from llmctl.services.openai.head import FINGERPRINT, FINISH_REASONS, Head, Tally, counts, encoded, quoted


@dataclass(frozen=True, slots=True)
class Shape:
    """How a choice of a kind of chunk is written."""

    kind: str
    """The chunk's `object`."""
    before_text: str
    after_text: str
    without_text: str
    """The same field where there is nothing to say."""


@dataclass(slots=True)
class Choice:
    """A choice on its way."""

    index: int
    prompt: int
    """Number of the prompt that it goes on from."""
    before: str
    after: str
    """What stands around a piece of text in its chunk."""
    is_plain: bool = False
    """Whether nothing but text is to be told until it ends."""
    is_open: bool = False
    """Whether the opening chunk is sent."""
    num_characters: int = 0
    """Of its text so far, where somebody counts them."""


class ChunkStream(ABC):
    """The events of one answer: `push` for each delta, `end` after the last."""

    def __init__(
        self,
        head: Head,
        shape: Shape,
        delivery: Delivery,
        *,
        num_choices: int,
        num_prompts: int = 1,
        is_plain: bool = True,
    ) -> None:
        """`num_choices` for each of the prompts; `is_plain`: whether text alone needs nothing but writing."""
        self._shape, self._delivery, self._num_choices = shape, delivery, num_choices
        self._is_plain = is_plain and not delivery.counts_usage
        self._start = (
            f'data: {{"id":{quoted(head.id)},"object":{quoted(shape.kind)},"created":{head.created},'
            f'"model":{quoted(head.model)},"system_fingerprint":{quoted(FINGERPRINT)},"choices":['
        )
        self._end = ',"usage":null}\n\n' if delivery.includes_usage or delivery.counts_usage else "}\n\n"
        self._tally = Tally()
        self._num_tokens = 0
        self.num_prompt_tokens: int | None = None
        """Of all prompts; set before the first `push`, the counts in each chunk are known from the first on,
        else from the end of the first choice on."""
        self._choices = [self._choice(index) for index in range(num_choices * num_prompts)]

    def push(self, delta: Delta, *, prompt: int = 0) -> bytes:
        """The events that tell `delta`, which is an answer to the prompt of this number; b"" for none."""
        choice = self._choices[prompt * self._num_choices + delta.index]
        if choice.is_plain and not (delta.logprobs or delta.reasoning or delta.finish):
            return f"{choice.before}{quoted(delta.text)}{choice.after}".encode() if delta.text else b""
        return "".join(self._events(choice, self._heard(delta))).encode()

    def end(self) -> bytes:
        """The events after the last delta."""
        usage = self._tally.as_dict()
        if not self._delivery.includes_usage or usage is None:
            return DONE
        return f'{self._start}],"usage":{encoded(usage)}}}\n\n'.encode() + DONE

    def _heard(self, delta: Delta) -> Delta:
        """What of `delta` is told."""
        return delta

    @abstractmethod
    def _opening(self, choice: Choice, delta: Delta) -> Iterator[str]:
        """The first events of a choice."""

    @abstractmethod
    def _piece(self, choice: Choice, delta: Delta) -> Iterator[str]:
        """The events for what `delta` says."""

    def _chunk(self, choice: Choice, said: str, *, logprobs: str = "null", finish: str = "null") -> str:
        return (
            f'{self._start}{{"index":{choice.index},{said},"logprobs":{logprobs},"finish_reason":{finish}}}]'
            f"{self._counted()}"
        )

    def _text(self, text: str) -> str:
        return f"{self._shape.before_text}{quoted(text)}{self._shape.after_text}"

    def _choice(self, index: int) -> Choice:
        before = f'{self._start}{{"index":{index},{self._shape.before_text}'
        after = f'{self._shape.after_text},"logprobs":null,"finish_reason":null}}]{self._end}'
        return Choice(index=index, prompt=index // self._num_choices, before=before, after=after)

    def _events(self, choice: Choice, delta: Delta) -> Iterator[str]:
        self._num_tokens += len(delta.token_ids)
        if not choice.is_open:
            choice.is_open, choice.is_plain = True, self._is_plain
            yield from self._opening(choice, delta)
        yield from self._piece(choice, delta)
        if delta.finish is not None:
            self._tally.add(delta.finish.usage, prompt=choice.prompt)
            yield self._chunk(
                choice, self._shape.without_text, finish=quoted(FINISH_REASONS[delta.finish.reason])
            )

    def _counted(self) -> str:
        """The end of a chunk, with the counts so far where they are asked for."""
        if not self._delivery.counts_usage:
            return self._end
        num_prompt = self.num_prompt_tokens
        if num_prompt is None:
            num_prompt = sum(self._tally.prompts.values())
        return f',"usage":{encoded(counts(num_prompt, self._num_tokens))}}}\n\n' if num_prompt else self._end
