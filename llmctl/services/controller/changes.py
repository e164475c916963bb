"""Wakes those who wait for a change of the table."""

import asyncio


class Changes:
    """A bell that many may wait for; of one event loop."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()
        self.is_over = False
        """Whether nobody is to wait any more."""

    def ring(self) -> None:
        """Wake all who wait now."""
        for each in self._waiting:
            if not each.done():
                each.set_result(None)

    def close(self) -> None:
        """Wake all, and let nobody wait any more."""
        self.is_over = True
        self.ring()

    async def wait(self, timeout_s: float) -> None:
        """Return at the next ring, or after `timeout_s`."""
        if self.is_over:
            return
        bell = asyncio.get_running_loop().create_future()
        self._waiting.add(bell)
        try:
            await asyncio.wait([bell], timeout=timeout_s)
        finally:
            self._waiting.discard(bell)
