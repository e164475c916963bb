"""Opens the conversation that `llmctl chat` holds: new, or one of the log."""

import logging
import os
from dataclasses import replace

from llmctl.cli.chat.conversation import Conversation
from llmctl.cli.chat.flags import Keeping
from llmctl.cli.chat.opening import WITH_DELTA, Opening
from llmctl.cli.console import Console
from llmctl.core.errors import LlmctlError, NotFoundError
from llmctl.core.places import Places
from llmctl.core.settings import Settings
from llmctl.sessions.store import FILE_NAME, SessionLog

logger = logging.getLogger(__name__)


def open_conversation(
    console: Console, settings: Settings, keeping: Keeping, *, insists_on_system: bool
) -> Conversation:
    """The conversation to go on with.

    A log that cannot be used is told and done without, unless the user asks for what is in it.
    Raises `NotFoundError` when there is no conversation to continue.
    """
    log = _log(keeping)
    conversation = Conversation(log, system=settings.system)
    conversation.endpoint = settings.url
    if keeping.flag is not None:
        assert log is not None
        _resume(console, conversation, log, keeping)
        if insists_on_system and settings.system != conversation.system:
            conversation.set_system(settings.system)
    if not keeping.is_kept:
        conversation.forget_log()
    return conversation


def resumed(opening: Opening, conversation: Conversation) -> Opening:
    """`opening` with the model and server that a resumed conversation was held with, where none is named."""
    settings, model = opening.settings, conversation.resumed_model
    if model is None or "model" in settings.origins or settings.url is not None:
        return opening
    origin = {"model": "the session", "url": "the session"}
    model, _, delta = model.partition(WITH_DELTA)
    found = {"model": model, "url": conversation.resumed_endpoint}
    conversation.endpoint = conversation.resumed_endpoint
    if conversation.endpoint is not None:
        logger.warning(
            "going on with %s at %s, as in that session (--url names another)", model, conversation.endpoint
        )
    settings = settings.with_flags(found, names=origin)
    return replace(opening, settings=settings, delta=opening.delta or delta or None)


def _log(keeping: Keeping) -> SessionLog | None:
    if not keeping.is_kept and keeping.flag is None:
        return None
    path = Places.from_environ(os.environ).data / FILE_NAME
    try:
        return SessionLog.open(path)
    except LlmctlError as error:
        if keeping.flag is not None:
            raise
        logger.warning("this conversation is not kept: %s", error.message)
        return None


def _resume(console: Console, conversation: Conversation, log: SessionLog, keeping: Keeping) -> None:
    if keeping.session is not None:
        try:
            conversation.resume(log.find(keeping.session))
        except NotFoundError:
            # A number can only mean a session that is there.
            if keeping.session.isdigit():
                raise
            conversation.name = log.checked_name(keeping.session)
            console.note(f"(a new session: {keeping.session})")
        return
    latest = log.latest()
    if latest is None:
        raise NotFoundError("there is no conversation to continue", hint="leave out --continue to begin one")
    conversation.resume(latest)
