"""Entry point of `llmctl` and `python -m llmctl`.

`--version` is answered before anything else is imported: scripts call it often and it must cost nothing.
"""

import os
import sys


def main() -> None:
    """Run the command line; never returns (the process exits with the code of architecture's table)."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from llmctl import __version__

        # Not through sys.stdout: what it cannot write to a closed pipe it tries again when Python exits.
        try:
            os.write(1, f"llmctl {__version__}\n".encode())
        except OSError:
            raise SystemExit(1) from None
        raise SystemExit(0)
    try:
        from llmctl.cli.app import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C while the command line itself is being imported.
        code = 130
    if "torch" in sys.modules:
        _leave_at_once(code)
    raise SystemExit(code)


def _leave_at_once(code: int) -> None:
    """Python takes up to a second to take torch apart; all that is ours is written and closed by now."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:
            code = code or 1
    os._exit(code)


if __name__ == "__main__":
    main()
