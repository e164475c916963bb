"""What the user sees of a conversation that goes on: where it stands, not all of it again."""

from llmctl.cli.chat.conversation import Conversation
from llmctl.cli.console import Console
from llmctl.cli.repl.view import Look, show_message


def show_resumed(console: Console, look: Look, conversation: Conversation) -> None:
    """The last exchange, and how much came before it."""
    turns = conversation.turns
    if not turns and conversation.unanswered is None:
        console.note("(an empty conversation)")
        return
    starts = [place for place, turn in enumerate(turns) if turn.message.role == "user"]
    begin = starts[-1] if starts else 0
    label = conversation.name or (f"session {conversation.session_id}" if conversation.session_id else "file")
    before = f", {begin} before these (/show conversation)" if begin else ""
    console.note(f"({label}: {len(turns)} turns{before})")
    for turn in turns[begin:]:
        show_message(console, look, turn.message)
    if conversation.unanswered is not None:
        console.note("(the last question got no answer; /retry asks it)")
