"""The house is checked inside plain pytest: layers, sizes, types, style, and what may lie where.

The caps are a guide to taste (README, Style). One that makes a file worse is moved here, with its reason.
"""

import ast
import math
import re
import statistics
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from llmctl.cli.commands import COMMANDS, Entry

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "llmctl"

# A file is read as a whole: 300 lines is about what one sitting takes in, 400 is where it gets split.
FILE_LINES_CAP, FILE_LINES_P90 = 400, 300
# Lines of a body without signature and docstring. Most functions fit into a glance, none exceeds a screen.
FUNCTION_LINES_CAP, FUNCTION_LINES_MEDIAN = 60, 10
# More parameters are a dataclass that nobody has named yet. Typer commands are exempt: a parameter is a flag.
PARAMETERS_CAP = 6
# A longer chain is a table, a `match` or a method.
ELIF_CAP = 4
# The hub and most git hosts take it, and a clone stays quick.
FILE_BYTES_CAP = 6_500_000

BROAD_EXCEPT_ALLOWED = {
    "llmctl/adapters/foreign.py": "plugins and adapter files may raise anything; one error names them",
    "llmctl/cli/app.py": "the edge of the command line: whatever nobody foresaw becomes one line",
    "llmctl/core/threads.py": "what a thread raises is carried over to the one that waits",
    "llmctl/services/http/edge.py": "the edge of HTTP: whatever nobody foresaw is told to no client",
    "llmctl/engine/loop.py": "what ends the engine's thread is told to all who wait for answers",
}
SIGNATURES_OF_FASTCHAT = {("llmctl.loading.api", "load_model"), ("llmctl.engine.api", "stream")}
"""Programs written for FastChat call these with its parameters."""
STREAMS_ALLOWED = {
    "llmctl/adapters/foreign.py": "what a plugin prints goes to stderr",
    "llmctl/cli/console.py": "the one place that prints",
    "llmctl/__main__.py": "--version answers before the console is imported",
    "llmctl/cli/app.py": "--debug prints the traceback",
    "llmctl/cli/doctor.py": "what a package prints when it is imported goes to stderr",
    "llmctl/core/log.py": "the handler of the log writes to stderr",
    "llmctl/loading/loader.py": "what a model's own code prints goes to stderr",
}
TOP_LEVEL = {
    "llmctl",
    "tests",
    "completions",
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
}
# Names under which things gather that have nothing in common.
NAMELESS = {"utils.py", "util.py", "common.py", "misc.py", "helpers.py"}
MACHINE_PATHS = {
    "a path of one machine": re.compile(r"(?<![\w.~}/])/(?:work|root|home/[a-z]\w*)/"),
    "a host of a private network": re.compile(
        r"https?://[^\s/\"']*(?:\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+"
        r"|\.(?:internal|intranet|corp|lan)\b|artifactory|\bnexus\b)",
        re.IGNORECASE,
    ),
}
# Paths that stand in a test because a user could have typed them.
EXAMPLE_PATHS = re.compile(r"/home/(?:alpaca|vicuna)/")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class Module:
    """A source file of the package and what it parses to."""

    path: Path
    name: str
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    def at(self, node: ast.AST, what: str) -> str:
        """A finding that an editor can jump to."""
        return f"{self}:{getattr(node, 'lineno', 1)} {what}"

    @property
    def num_lines(self) -> int:
        """Lines of the file."""
        return len(self.text.splitlines())


def read_module(path: Path) -> Module:
    """Parse a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Module(path=path, name=name, text=text, tree=ast.parse(text))


MODULES = tuple(read_module(path) for path in sorted(PACKAGE.rglob("*.py")))


def functions() -> Iterator[tuple[Module, Function]]:
    """Every function of the package, nested ones too."""
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, Function):
                yield module, node


def public_definitions(body: list[ast.stmt]) -> Iterator[Definition]:
    """Functions and classes that others may use, and the public methods of those classes."""
    for node in body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public_definitions(node.body)


def num_body_lines(function: Function) -> int:
    """Lines of the body, signature and docstring left out."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(function: Function) -> list[ast.arg]:
    """All parameters but a method's own first one."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    extra = [arg for arg in (given.vararg, given.kwarg) if arg is not None]
    return [arg for arg in (*named, *extra) if arg.arg not in ("self", "cls")]


def command_functions(entries: dict[str, Entry] = COMMANDS) -> set[tuple[str, str]]:
    """(module, function) of all Typer commands, and of the carrier of the options that all of them have."""
    found = {("llmctl.cli.options", "_common")}
    for entry in entries.values():
        if entry.commands is not None:
            found |= command_functions(entry.commands)
        else:
            module, _, function = entry.target.partition(":")
            found.add((module, function))
    return found


def elif_length(node: ast.If) -> int:
    """How many `elif` follow this `if`."""
    length = 0
    while len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        node, length = node.orelse[0], length + 1
    return length


def executed_on_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """All nodes that an import evaluates: everything but the bodies of functions."""
    for statement in body:
        yield from _evaluated(statement)


def _evaluated(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    if isinstance(node, Function | ast.Lambda):
        return
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        return
    for child in ast.iter_child_nodes(node):
        yield from _evaluated(child)


def module_imports(module: Module) -> set[str]:
    """Modules of the package that importing `module` imports by name."""
    known = {other.name for other in MODULES}
    found: set[str] = set()
    for node in executed_on_import(module.tree.body):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            parts = {f"{source}.{alias.name}" for alias in node.names}
            # `from package import module` reads the module, `from module import name` the module before it.
            found |= (parts & known) or {source}
    return found & known


def repository_files() -> list[Path]:
    """What git holds; before the first commit what it would hold; without git all that is not hidden."""
    if (ROOT / ".git").exists():
        for which in (["--cached"], ["--others", "--exclude-standard"]):
            command = ["git", "-C", str(ROOT), "ls-files", "-z", *which]
            names = subprocess.run(command, capture_output=True, check=True).stdout.decode().split("\0")
            if found := [ROOT / name for name in names if name and (ROOT / name).is_file()]:
                return found
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return [
        ROOT / path for path in paths if "__pycache__" not in path.parts and not path.parts[0].startswith(".")
    ]


def run_tool(*args: str) -> None:
    """Run a checker over the repository; what it says is the failure."""
    ended = subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def assert_none(findings: Iterable[str]) -> None:
    """Show all findings, one a line, where pytest would shorten a long list."""
    found = list(findings)
    assert not found, "\n".join(["", *found])


def percentile(values: list[int], share: float) -> int:
    """The smallest value that at least `share` of all values do not exceed."""
    return sorted(values)[math.ceil(share * len(values)) - 1]


# What the tools say


def test_imports_go_only_downwards() -> None:
    run_tool(
        "-c", "from importlinter.cli import lint_imports_command as lint; lint(['--no-cache', '--no-logo'])"
    )


def test_ruff_finds_nothing() -> None:
    run_tool("-m", "ruff", "check", "--no-cache", "--output-format=concise", ".")


def test_every_file_is_formatted() -> None:
    run_tool("-m", "ruff", "format", "--no-cache", "--check", ".")


def test_mypy_is_content() -> None:
    # Its cache lies in .mypy_cache, which git ignores: without one it reads torch anew, 35 s instead of 2.
    run_tool("-m", "mypy")


# Sizes


def test_no_file_is_too_long() -> None:
    assert_none(f"{module}: {module.num_lines}" for module in MODULES if module.num_lines > FILE_LINES_CAP)


def test_nine_files_of_ten_are_read_in_one_sitting() -> None:
    assert percentile([module.num_lines for module in MODULES], 0.9) <= FILE_LINES_P90


def test_no_function_is_too_long() -> None:
    assert_none(
        module.at(function, f"{function.name}: {num_body_lines(function)} lines")
        for module, function in functions()
        if num_body_lines(function) > FUNCTION_LINES_CAP
    )


def test_most_functions_fit_into_a_glance() -> None:
    assert statistics.median(num_body_lines(function) for _, function in functions()) <= FUNCTION_LINES_MEDIAN


def test_no_function_takes_too_many_parameters() -> None:
    exempt = command_functions() | SIGNATURES_OF_FASTCHAT
    assert_none(
        module.at(function, f"{function.name}: {len(parameters(function))} parameters")
        for module, function in functions()
        if len(parameters(function)) > PARAMETERS_CAP and (module.name, function.name) not in exempt
    )


def test_every_command_in_the_table_exists() -> None:
    present = {(module.name, function.name) for module, function in functions()}
    assert command_functions() - present == set()


def test_no_elif_chain_is_too_long() -> None:
    assert_none(
        module.at(node, f"{elif_length(node)} elif")
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.If) and elif_length(node) > ELIF_CAP
    )


# Habits


def test_nothing_is_global() -> None:
    assert_none(
        module.at(node, "global")
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Global)
    )


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether it catches everything: `except:`, `except Exception`, `except (X, BaseException)`."""
    kind = handler.type
    names = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(name is None or ast.unparse(name) in ("Exception", "BaseException") for name in names)


def test_only_the_edges_catch_everything() -> None:
    assert_none(
        module.at(node, "catches everything")
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler) and is_broad(node) and str(module) not in BROAD_EXCEPT_ALLOWED
    )


STREAMS = ("sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__")
QUESTIONS = re.compile(r"\b(?:is_terminal\((sys\.\w+)\)|(sys\.\w+)\.(?:isatty|fileno)\(\))")


def stream_uses(tree: ast.AST) -> list[ast.AST]:
    """`print(...)`, `os.write(...)`, and `sys.stdout` or `sys.stderr` for more than a question about them."""
    questions = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and QUESTIONS.fullmatch(ast.unparse(node))
        for part in ast.walk(node)
    }
    return [
        node
        for node in ast.walk(tree)
        if (isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "os.write"))
        or (isinstance(node, ast.Attribute) and ast.unparse(node) in STREAMS and id(node) not in questions)
    ]


def test_only_the_console_prints() -> None:
    assert_none(
        module.at(node, ast.unparse(node))
        for module in MODULES
        if str(module) not in STREAMS_ALLOWED
        for node in stream_uses(module.tree)
    )


@pytest.mark.parametrize("name", sorted(STREAMS_ALLOWED | BROAD_EXCEPT_ALLOWED))
def test_an_exception_to_the_rules_is_still_needed(name: str) -> None:
    tree = read_module(ROOT / name).tree
    if name in STREAMS_ALLOWED:
        assert stream_uses(tree)
    if name in BROAD_EXCEPT_ALLOWED:
        assert any(isinstance(node, ast.ExceptHandler) and is_broad(node) for node in ast.walk(tree))


def test_no_modules_import_each_other() -> None:
    graph = {module.name: module_imports(module) - {module.name} for module in MODULES}
    assert graph["llmctl.cli.app"] >= {"llmctl.cli.commands", "llmctl.core.log"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_no_import_is_relative() -> None:
    assert_none(
        module.at(node, "relative import")
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom) and node.level
    )


def test_no_file_has_a_name_that_says_nothing() -> None:
    assert_none(str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py") if path.name in NAMELESS)


def test_import_does_nothing() -> None:
    effects = re.compile(
        r"^(os\.)?(environ|getenv|putenv)\b|^logging\.(basicConfig|config\b)|^(\w+\.)?(setLevel|addHandler)$"
        r"|^warnings\.|^signal\.signal|^resource\.setrlimit|\.is_available$|^Path\.(cwd|home)$"
    )
    assert_none(
        module.at(node, ast.unparse(node))
        for module in MODULES
        for node in executed_on_import(module.tree.body)
        if isinstance(node, ast.Attribute | ast.Name) and effects.search(ast.unparse(node))
    )


# Text and types


def test_every_module_says_what_it_is_for() -> None:
    assert_none(str(module) for module in MODULES if not ast.get_docstring(module.tree))


def test_everything_public_says_what_it_does() -> None:
    assert_none(
        module.at(node, node.name)
        for module in MODULES
        for node in public_definitions(module.tree.body)
        if not ast.get_docstring(node)
    )


def test_every_parameter_and_result_has_a_type() -> None:
    assert_none(
        module.at(function, function.name)
        for module, function in functions()
        if any(arg.annotation is None for arg in parameters(function)) or function.returns is None
    )


def test_no_type_error_is_silenced_without_its_code() -> None:
    silenced = re.compile(r"#\s*type:\s*ignore(?!\[)|#\s*mypy:\s*(ignore-errors|disable)")
    assert_none(
        f"{module}:{number} {line.strip()}"
        for module in MODULES
        for number, line in enumerate(module.text.splitlines(), start=1)
        if silenced.search(line)
    )


# The repository


def test_the_top_level_holds_what_the_readme_names() -> None:
    names = {path.relative_to(ROOT).parts[0] for path in repository_files()}
    assert "llmctl" in names
    assert {name for name in names if not name.startswith(".")} - TOP_LEVEL == set()


def test_no_file_speaks_of_one_machine() -> None:
    found = []
    for path in repository_files():
        for number, line in enumerate(_text_lines(path), start=1):
            if path.is_relative_to(ROOT / "tests"):
                line = EXAMPLE_PATHS.sub("", line)
            found += [
                f"{path.relative_to(ROOT)}:{number} {what}: {line.strip()[:80]}"
                for what, pattern in MACHINE_PATHS.items()
                if pattern.search(line)
            ]
    assert_none(found)


def _text_lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return []


def test_no_file_is_too_big_for_a_git_host() -> None:
    assert_none(
        f"{path.relative_to(ROOT)}: {path.stat().st_size}"
        for path in repository_files()
        if path.stat().st_size > FILE_BYTES_CAP
    )


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("cd /" + "work/main", True),
        ("'/" + "root/.cache'", True),
        ("/" + "home/someone/x", True),
        ("http://10." + "1.2.3:8081/simple", True),
        ("https://pypi." + "internal:8081/simple", True),
        ("https://huggingface.co/a/root/b", False),
        ("http://127.0.0.1:9/work/", False),
        ("a/work/b ~/work/x ./root/", False),
    ],
)
def test_what_counts_as_a_machine_path(text: str, is_found: bool) -> None:
    assert any(pattern.search(text) for pattern in MACHINE_PATHS.values()) is is_found


@pytest.mark.parametrize(
    ("source", "num_broad", "num_streams"),
    [
        ("try:\n    x\nexcept:\n    y", 1, 0),
        ("try:\n    x\nexcept (OSError, Exception):\n    y", 1, 0),
        ("try:\n    x\nexcept OSError:\n    y", 0, 0),
        ("print(1)", 0, 1),
        ("os.write(1, b'')", 0, 1),
        ("sys.stdout.write('')", 0, 1),
        ("sys.stdout.isatty()", 0, 0),
        ("is_terminal(sys.stdout)", 0, 0),
        ("write(sys.stderr)", 0, 1),
    ],
)
def test_what_counts_as_broad_and_as_printing(source: str, num_broad: int, num_streams: int) -> None:
    tree = ast.parse(source)
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    assert sum(map(is_broad, handlers)) == num_broad
    assert len(stream_uses(tree)) == num_streams
