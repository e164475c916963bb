"""schemathesis against the descriptions that a fleet publishes: no case is an error of the server."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.services.clients.fleet import Fleet, until
from tests.services.clients.raw import get

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(find_spec("schemathesis") is None, reason="schemathesis is not installed"),
]
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "unsupported_method",
)


# The gateway passes all bodies on to the workers, whose routes are the same.
@pytest.mark.parametrize(("part", "num_cases"), [("gateway", 2000), ("controller", 300)])
def test_no_case_is_an_error_of_the_server(fleet: Fleet, tmp_path: Path, part: str, num_cases: int) -> None:
    served = fleet.one(part)
    key = f"Authorization: Bearer {fleet.token}"
    paths = get(served.port, "/openapi.json", key).json["paths"].values()
    num_operations = sum(len({"get", "post", "delete"} & path.keys()) for path in paths)
    flags = {
        "--header": key,
        "--checks": ",".join(CHECKS),
        "--phases": "examples,coverage,fuzzing",
        "--max-examples": str(num_cases // num_operations),
        "--seed": "6",
        "--request-timeout": "120",
        "--suppress-health-check": "all",
    }
    words = [word for pair in flags.items() for word in pair]
    url = f"{served.url}/openapi.json"
    ended = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", url, "--continue-on-failure", *words],
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stdout[-8000:]
    found = re.search(r"(\d+) generated", ended.stdout)
    assert found is not None, ended.stdout
    assert int(found[1]) >= num_cases
    # It may have taken workers out, who come back with their next heartbeat.
    gateway = fleet.one("gateway")
    until(lambda: get(gateway.port, "/v1/models", key).json["data"], within_s=10)
