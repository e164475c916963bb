"""The streaming core: checkpoints read and written tensor by tensor, resumable, atomic, in little memory."""
