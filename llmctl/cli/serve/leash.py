"""`python -m llmctl.cli.serve.leash SECONDS ARGS`: runs `llmctl ARGS` until whoever started it is gone.

Its stdin is a pipe of theirs into which nothing is written. When it closes, this process is told to end, and
does so at once after SECONDS. That works on all systems, and when they are killed as well.
"""

import os
import signal
import sys
import threading
import time

from llmctl.__main__ import main as run_llmctl

_GONE_EXIT = 143


def main() -> None:
    """Run the command line; never returns."""
    seconds = float(sys.argv.pop(1))
    threading.Thread(target=_watch, args=(seconds,), name="leash", daemon=True).start()
    run_llmctl()


def _watch(seconds: float) -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)
    os._exit(_GONE_EXIT)


if __name__ == "__main__":
    main()
