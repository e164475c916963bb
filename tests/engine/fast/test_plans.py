"""oneDNN's plans for each number of rows do not fill the memory of a process that runs for long."""

import subprocess
import sys

import pytest
import torch

from llmctl.quant import dense

PLAY = """
import torch
from pathlib import Path
from llmctl.loading import memory
from llmctl.quant.activations import Memo
from llmctl.quant.dense import DenseKernel

def held():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line)
    return int(line.split()[1]) / 1024

with memory.frugal():
    kernel = DenseKernel(torch.randn(896, 896).bfloat16(), Memo())
rows = torch.randn(700, 896).bfloat16()
with torch.inference_mode():
    for count in range(1, 700):
        kernel.multiply(rows[:count], rows[:count])
        if count == 100:
            before = held()
print(held() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the memory")
@pytest.mark.skipif(not dense.fits(torch.bfloat16), reason="oneDNN has no bfloat16 here")
def test_many_different_numbers_of_rows_leave_little_behind() -> None:
    done = subprocess.run([sys.executable, "-c", PLAY], capture_output=True, text=True, check=True)
    # Without a bound it is more than a gigabyte.
    assert float(done.stdout) < 300, f"{done.stdout.strip()} MB more"
