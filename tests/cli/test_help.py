"""`--help` and `--version`: quick, complete, and a surface that does not change unnoticed."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llmctl import __version__
from llmctl.cli import app
from llmctl.cli.commands import COMMANDS, Entry, build_command, build_group
from llmctl.core import lazy
from tests.conftest import ROOT, Llmctl

COMMON = ["-v --verbose", "-q --quiet", "--debug", "--color"]
SAMPLING = [
    "--temperature",
    "--top-p",
    "--top-k",
    "--min-p",
    "--repetition-penalty",
    "--presence-penalty",
    "--frequency-penalty",
    "--seed",
    "--max-new-tokens",
    "--stop",
    "--stop-token-id",
    "--logprobs",
]
QUANTIZING = ["--load-8bit", "--load-4bit", "--quantization"]
SPREADING = ["--num-gpus", "--gpus", "--max-gpu-memory", "--cpu-offloading"]
LOADING = [
    *("--device", "--dtype"),
    *QUANTIZING,
    *SPREADING,
    *("--quant-config", "--context", "--revision", "--trust-remote-code"),
]
WRITING = ["--overwrite", "--dry-run", "--revision", "--json"]
# Every command with the flags that it shows and those that it only understands. A flag that goes away breaks
# somebody's script, and one that comes needs a line in the CHANGELOG: change this table by hand.
SURFACE: dict[str, tuple[list[str], list[str]]] = {
    "llmctl": (["--version -V", *COMMON], []),
    "llmctl chat": (
        [
            "MODEL",
            *("-p --prompt", "-f --file", "-s --system", "--messages", "--raw", "--template"),
            "--adapter-file",
            *("-x --extract", "--json", "--style", "--plain", "--hide-reasoning"),
            "--thinking --no-thinking",
            *("-c --continue", "--session", "--no-log", "--no-history"),
            *("--url", "--api-key-file", "--timeout"),
            *SAMPLING,
            *LOADING,
            "--delta",
            *COMMON,
        ],
        ["--model-path", "--conv-template", "--conv-system-msg", "--enable-exllama", "--enable-xft"],
    ),
    "llmctl models": (COMMON, []),
    "llmctl models list": (
        ["--family", "--kind", "--search", "--local", "--adapter-file", "--json", *COMMON],
        [],
    ),
    "llmctl models match": (
        ["MODEL", "--explain", "--render", "--template", "--adapter-file", "--json", *COMMON],
        [],
    ),
    "llmctl models show": (
        [
            *("MODEL", "--memory", "--context", "--device", "--dtype"),
            *("--load-8bit", "--load-4bit", "--quantization --quant"),
            *SPREADING,
            *("--quant-config", "--revision", "--trust-remote-code"),
            *("--plan", "--engine", "--adapter-file", "--json", *COMMON),
        ],
        [],
    ),
    "llmctl models pull": (["MODEL", "--revision", "--json", *COMMON], []),
    "llmctl models convert": (["MODEL", "--out", "--dtype", "--max-shard-size", *WRITING, *COMMON], []),
    "llmctl models push": (
        ["FOLDER", "REPO", "--private", "--revision", "--message", "--dry-run", "--json", *COMMON],
        [],
    ),
    "llmctl models rm": (["MODEL", "--revision", "--yes -y", "--json", *COMMON], []),
    "llmctl compress": (
        [
            *("MODEL", "--method", "--out", "--group-size", "--skip", "--calibration", "--eval", "--no-eval"),
            *("--max-shard-size", *WRITING, *COMMON),
        ],
        [],
    ),
    "llmctl delta": (COMMON, []),
    "llmctl delta make": (
        [
            *("--base", "--target", "--out", "--format", "--exclude", "--hub-repo-id", "--private"),
            *("--max-shard-size", "--overwrite", "--dry-run", "--base-revision", "--revision", "--json"),
            *COMMON,
        ],
        [],
    ),
    "llmctl delta apply": (
        [
            *("--base", "--delta", "--out", "--max-shard-size", "--overwrite", "--dry-run"),
            *("--base-revision", "--revision", "--json", *COMMON),
        ],
        [],
    ),
    "llmctl delta show": (["DELTA", "--revision", "--json", *COMMON], []),
    "llmctl delta verify": (
        ["DELTA", "--base", "--target", "--base-revision", "--revision", "--json", *COMMON],
        [],
    ),
    "llmctl lora": (COMMON, []),
    "llmctl lora merge": (["--adapter", "--out", "--base", "--max-shard-size", *WRITING, *COMMON], []),
    "llmctl lora extract": (["--base", "--target", "--out", "--rank", *WRITING, *COMMON], []),
    "llmctl logs": (COMMON, []),
    "llmctl logs list": (["-n --limit", "--json", *COMMON], []),
    "llmctl logs show": (["SESSION", "--all", "--json", *COMMON], []),
    "llmctl logs search": (["QUERY", "-n --limit", "--json", *COMMON], []),
    "llmctl logs export": (["SESSION", "--format", "-o --output", "--all", "--force", *COMMON], []),
    "llmctl logs delete": (["SESSION", "--all", "--before", "--yes -y", "--json", *COMMON], []),
    "llmctl config": (COMMON, []),
    "llmctl config show": (["--origin", "--json", *COMMON], []),
    "llmctl bench": (COMMON, []),
    "llmctl bench layers": (
        ["--shape", "--rows", "--method", "--device", "--seconds", "--json", *COMMON],
        [],
    ),
    "llmctl bench engine": (
        [
            *("MODEL", "--shape", "--tokenizer", "--dtype", "--batch", "--prefill", "--mix", "--long"),
            *("--against", "--device", "--trust-remote-code", "--seconds", "--json", *COMMON),
        ],
        [],
    ),
    "llmctl bench serve": (
        [
            *("--url", "--model", "--api-key-file", "--timeout"),
            *("--against", "--against-model", "--against-api-key-file"),
            *("--concurrency", "--rate", "--requests", "--mix", "--prompts", "--max-tokens", "--endpoint"),
            *("--seed", "--json", *COMMON),
        ],
        [],
    ),
    "llmctl serve": (COMMON, []),
    "llmctl serve up": (
        [
            *("MODEL", "--workers", "--apart", "--host", "--port", "--controller-port", "--api-key-file"),
            *("--allowed-origin", "--timeout", "--dispatch-method", "--drain", "--detach"),
            *("--template", "--task", "--delta", "--adapter-file"),
            *("--max-running", "--max-waiting", "--max-step-tokens", "--kv-memory", "--no-prefix-cache"),
            *("--seed", *LOADING, "--json", *COMMON),
        ],
        ["--detached-in"],
    ),
    "llmctl serve ps": (["--json", *COMMON], []),
    "llmctl serve stop": (["FLEET", "--all", "--now", "--json", *COMMON], []),
    "llmctl serve worker": (
        [
            *("MODEL", "--model", "--template", "--task", "--delta", "--adapter-file"),
            *("--host", "--port", "--api-key-file", "--drain"),
            *("--controller", "--token-file", "--worker-address"),
            *("--max-running", "--max-waiting", "--max-step-tokens", "--kv-memory", "--no-prefix-cache"),
            *("--seed", *LOADING, *COMMON),
        ],
        [
            *("--model-path", "--model-names", "--conv-template"),
            *("--controller-address", "--no-register", "--limit-worker-concurrency"),
        ],
    ),
    "llmctl serve controller": (
        ["--host", "--port", "--token-file", "--dispatch-method", "--interval", *COMMON],
        ["--ssl"],
    ),
    "llmctl serve api": (
        [
            *("--controller", "--host", "--port", "--api-key-file", "--token-file", "--open"),
            *("--allowed-origin", "--timeout", "--drain", "--dispatch-method", *COMMON),
        ],
        ["--controller-address"],
    ),
    "llmctl serve status": (["--controller", "--token-file", "--watch", "--json", *COMMON], []),
    "llmctl doctor": (["--json", *COMMON], []),
    "llmctl completions": (["SHELL", *COMMON], []),
}
# What takes long to import and `--help` has no use for.
SLOW = ("torch", "transformers", "numpy", "httpx", "prompt_toolkit", "huggingface_hub", "jinja2", "asyncio")
SLOW_PARTS_OF_RICH = ("rich.markdown", "rich.progress")
HELP_COST_CAP = 2.5
NUM_TIMES = 7


def entries(
    table: dict[str, Entry] = COMMANDS, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Entry]]:
    """All commands and groups below `llmctl`, with their path."""
    for name, entry in table.items():
        yield (*path, name), entry
        if entry.commands is not None:
            yield from entries(entry.commands, (*path, name))


ENTRIES = dict(entries())
PATHS = [(), *ENTRIES]


def built(path: tuple[str, ...]) -> Any:
    """The command object behind a path."""
    if not path:
        return app.root()
    entry = ENTRIES[path]
    if entry.commands is not None:
        return build_group(path[-1], entry.summary, entry.commands)
    return build_command(path[-1], entry)


def flags(command: Any, *, hidden: bool) -> list[str]:
    """Options by all their names, arguments in capitals."""
    return [
        " ".join([*param.opts, *param.secondary_opts])
        if param.param_type_name == "option"
        else param.name.upper()
        for param in command.params
        if param.hidden is hidden
    ]


def modules_after(*args: str) -> set[str]:
    """What a run of `python -m llmctl` has imported."""
    command = [sys.executable, "-X", "importtime", "-m", "llmctl", *args]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}


def test_help_imports_nothing_slow() -> None:
    modules = modules_after("--help")
    assert "llmctl.cli.app" in modules
    assert modules & {*SLOW, *SLOW_PARTS_OF_RICH} == set()
    assert {name for name in modules if name.startswith("llmctl.")} <= {
        "llmctl.cli",
        "llmctl.cli.app",
        "llmctl.cli.commands",
        "llmctl.cli.console",
        "llmctl.cli.options",
        "llmctl.cli.parsing",
        "llmctl.core",
        *(name for name in modules if name.startswith("llmctl.core.")),
    }


@pytest.mark.parametrize("name", [*SLOW, *SLOW_PARTS_OF_RICH])
def test_what_help_must_not_import_would_be_found(name: str) -> None:
    # A name that no longer exists would make the test above pass for nothing.
    assert name == "httpx" or find_spec(name) is not None


def test_version_imports_next_to_nothing() -> None:
    modules = modules_after("--version")
    assert "llmctl" in modules
    assert {
        name for name in modules if name.partition(".")[0] in ("typer", "rich", "logging", "typing")
    } == set()


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_version_is_one_line(flag: str, llmctl_process: Llmctl) -> None:
    ended = llmctl_process(flag)
    assert (ended.code, ended.out, ended.err) == (0, f"llmctl {__version__}\n", "")


def test_version_is_the_same_beside_other_flags(llmctl: Llmctl) -> None:
    assert llmctl("-q", "--version").out == f"llmctl {__version__}\n"


def cpu_seconds(*args: str) -> float:
    """User and system time of a child; unlike wall-clock time it does not grow with the neighbours' work."""
    environ = {key: text for key, text in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *args], cwd=ROOT, env=environ, capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_costs_little_more_than_what_it_is_made_with() -> None:
    """The one test that measures time."""
    times: dict[str, list[float]] = {"help": [], "bare": []}
    for _ in range(NUM_TIMES):
        times["bare"].append(cpu_seconds("-c", "import typer, rich"))
        times["help"].append(cpu_seconds("-m", "llmctl", "--help"))
    assert min(times["help"]) <= HELP_COST_CAP * min(times["bare"]), times


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...], llmctl: Llmctl) -> None:
    ended = llmctl(*path, "-h")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"Usage: {' '.join(('llmctl', *path))} ")
    assert ended == llmctl(*path, "--help")


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_the_help_of_a_command_names_its_visible_flags_only(path: tuple[str, ...], llmctl: Llmctl) -> None:
    words = llmctl(*path, "-h").out.replace(",", " ").replace("[", " ").replace("]", " ").split()
    shown, hidden = SURFACE[" ".join(("llmctl", *path))]
    assert {name for names in shown for name in names.split()} <= set(words)
    assert {name for names in hidden for name in names.split()}.isdisjoint(words)


@pytest.mark.parametrize("path", [path for path in PATHS if not path or ENTRIES[path].commands], ids=" ".join)
def test_a_group_without_a_command_shows_its_help(path: tuple[str, ...], llmctl: Llmctl) -> None:
    ended = llmctl(*path)
    assert (ended.code, ended.out.rstrip(), ended.err) == (0, llmctl(*path, "-h").out.rstrip(), "")


def test_no_flag_comes_or_goes_unnoticed() -> None:
    present = {}
    for path in PATHS:
        command = built(path)
        name = " ".join(("llmctl", *path))
        present[name] = (flags(command, hidden=False), flags(command, hidden=True))
    assert json.dumps(present, indent=1) == json.dumps(SURFACE, indent=1)


@pytest.mark.parametrize("path", [path for path, entry in ENTRIES.items() if entry.target], ids=" ".join)
def test_the_line_in_the_list_is_the_first_of_the_docstring(path: tuple[str, ...]) -> None:
    assert ENTRIES[path].summary == lazy.load(ENTRIES[path].target).__doc__.splitlines()[0]


def test_the_list_shows_every_command_with_its_line(llmctl: Llmctl) -> None:
    lines = [line.split(maxsplit=1) for line in llmctl("--help").out.splitlines()]
    for name, entry in COMMANDS.items():
        assert [name, entry.summary] in lines


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_the_installed_script_is_the_module(flag: str, llmctl_process: Llmctl) -> None:
    script = Path(sys.executable).parent / "llmctl"
    assert script.exists(), "install llmctl into this environment: pip install -e ."
    ended = subprocess.run([script, flag], cwd=ROOT, capture_output=True, text=True)
    module = llmctl_process(flag)
    assert (ended.returncode, ended.stdout, ended.stderr) == (module.code, module.out, module.err)
    assert module.out != ""
