"""The gateway under load, measured: what part 6 promises of it."""

import pytest

from tests.services.api.load import measure

NEEDED = 3000.0
"""Frames a second, on two cores that clients and workers share."""


@pytest.mark.heavy
def test_thousands_of_frames_pass_in_a_second() -> None:
    # Others may use this machine: the best of some rounds is what the gateway can do.
    loads = [measure(num_clients=200, num_workers=8, rate=25.0, seconds=4.0) for _ in range(3)]
    best = max(loads, key=lambda load: load.frames_per_s)
    assert best.frames_per_s >= NEEDED, loads
    assert min(load.gateway_cpu_s_per_1000 for load in loads) < 0.15, loads
