"""What controller and gateway do alike with a table: who can take a request, and if nobody, why."""

from collections.abc import Iterable

from llmctl.core.errors import LlmctlError, NotFoundError, NoWorkerError
from llmctl.services.dispatch import Candidate
from llmctl.services.wire import ModelState, WorkerState

REMEMBERED_S = 60.0
"""How long a model without workers counts as one that will be back."""
_MAX_NAMES_TOLD = 10


def serving(states: Iterable[WorkerState], model: str, *, needs: str | None) -> dict[str, Candidate]:
    """By id, the workers that take requests for `model`, as busy as they told.

    `needs` is a capability: workers whose model lacks it are left out, unless all lack it.
    """
    found = [
        (state, served)
        for state in states
        if not state.is_draining and (served := state.model(model)) is not None
    ]
    able = [pair for pair in found if needs in pair[1].capabilities] or found
    return {state.id: _candidate(state, served) for state, served in able}


class Memory:
    """The names of models that were served lately."""

    def __init__(self) -> None:
        self._served: dict[str, float] = {}

    def note(self, states: Iterable[WorkerState], now: float) -> None:
        """These workers are there now."""
        for state in states:
            self._served.update((name, now) for model in state.models for name in model.names)
        self._served = {name: at for name, at in self._served.items() if now - at <= REMEMBERED_S}

    def nobody(self, model: str, served: Iterable[ModelState], now: float) -> LlmctlError:
        """The error for a request that no worker can take, `served` being what could be asked for instead.

        `NoWorkerError` where the model will be back, or nothing is served at all; else `NotFoundError`.
        """
        names = [name for each in served for name in each.names]
        is_missed = now - self._served.get(model, float("-inf")) <= REMEMBERED_S
        if model in names or is_missed or not names:
            return NoWorkerError(
                f"no worker serves {model!r} now", hint="try again, or start one: llmctl serve worker"
            )
        told = ", ".join(names[:_MAX_NAMES_TOLD]) + (", …" if len(names) > _MAX_NAMES_TOLD else "")
        return NotFoundError(f"no worker serves a model {model!r}", hint=f"there is {told}")


def _candidate(state: WorkerState, model: ModelState) -> Candidate:
    # A worker of several models has an engine for each.
    busy = state if len(state.models) == 1 else model
    return Candidate(
        id=state.id,
        url=state.url,
        num_running=busy.num_running,
        num_waiting=busy.num_waiting,
        max_running=busy.max_running,
        tokens_per_s=state.tokens_per_s,
    )
