"""Plain generation for one sequence at a time: the model's own forward, its own cache, one token a step.

It stays as the oracle that the batching engine is compared with.
"""

from collections.abc import Generator, Iterator
from typing import Any

import torch

from llmctl.core.types import Delta
from llmctl.engine.detokenize import Vocabulary
from llmctl.engine.generate import answer
from llmctl.engine.generate.answer import NewToken, token_logprob
from llmctl.engine.generate.job import Job
from llmctl.engine.generate.sampler import Sampler
from llmctl.engine.generate.stepper import Stepper


def generate(model: Any, vocabulary: Vocabulary, job: Job) -> Generator[Delta, None, None]:
    """Generate `job`, a delta for every token; the last one carries `finish`.

    Closing the iterator ends the work. Raises what torch raises when memory runs out.
    """
    return answer.stream(vocabulary, job, _tokens(model, vocabulary, job))


def _tokens(model: Any, vocabulary: Vocabulary, job: Job) -> Iterator[NewToken]:
    step = Stepper(model)
    prompt_ids = torch.tensor(job.prompt_ids, device=model.device)
    logits = step(prompt_ids)
    sampler = Sampler(job.sampling, prompt_ids, len(logits), end_ids=job.end_ids, bad_words=job.bad_words)
    while True:
        token_id = sampler.sample(logits)
        logprob = token_logprob(vocabulary, logits, token_id, job.sampling.logprobs)
        yield NewToken(token_id=token_id, logprob=logprob)
        logits = step(prompt_ids.new_tensor([token_id]))
