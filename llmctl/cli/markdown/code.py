"""A fenced code block: where it ends, and its lines in colour, each of them on its own and once."""

import re
from collections.abc import Iterator
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from llmctl.cli.markdown.flow import sgr

if TYPE_CHECKING:
    from pygments.lexer import Lexer

_OPENING = re.compile(r"(?P<fence>(?P<char>[`~])(?P=char)*)\s*(?P<info>.*)", re.DOTALL)
_LANGUAGE = re.compile(r"[{.\s]*([^\s{},:]+)")
_QUOTE = re.compile(r"[ \t]*> ?")
# A longer line is no code that anyone reads, and some lexers take more than linear time.
_MAX_HIGHLIGHTED = 1000
# What models write. Of the hundreds of other lexers some never come back from a line they do not expect.
_NAMES = """
    asm awk bash bat batch bib bibtex c c# c++ clojure cmake console cpp cs csharp css cuda cypher cython
    dart diff docker dockerfile elixir elm erlang f# fish fortran fsharp glsl go golang graphql groovy
    haskell hcl hlsl hs html http ini java javascript jinja jl js json json5 jsx julia kotlin latex less
    lisp lua make makefile markdown matlab md nasm nginx nim nix objc objective-c ocaml octave perl php pl
    postgres postgresql powershell properties proto protobuf ps1 pwsh py py3 pycon python python3 r racket
    rb rs ruby rust sass scala scheme scss sh shell solidity sql sqlite3 swift tcl terraform tex tf toml
    ts tsx typescript vb.net verilog vhdl vim vue wat xml yaml yml zig zsh
"""
LANGUAGES = frozenset(_NAMES.split())
_ALIASES = {
    "gradle": "groovy",
    "jsonc": "json5",
    "jsonl": "json",
    "kt": "kotlin",
    "patch": "diff",
    "svg": "xml",
}
# Of the 16 standard colours those that can be read on black and on white.
_STYLES = {
    "Comment.Preproc": "36",
    "Comment": "2",
    "Keyword.Constant": "36",
    "Keyword.Type": "36",
    "Keyword": "35",
    "Literal.Number": "36",
    "Literal.String.Doc": "32",
    "Literal.String": "32",
    "Name.Function": "1",
    "Name.Class": "1",
    "Name.Namespace": "",
    "Name.Builtin": "36",
    "Name.Decorator": "36",
    "Name.Exception": "36",
    "Name.Attribute": "36",
    "Name.Tag": "35",
    "Operator.Word": "35",
    "Generic.Deleted": "31",
    "Generic.Inserted": "32",
    "Generic.Heading": "1",
    "Generic.Subheading": "35",
    "Generic.Prompt": "2",
}


class Fence:
    """An open code block; `column` and `num_quotes` say what of each line is not code."""

    def __init__(self, opening: str, *, column: int, num_quotes: int, is_colored: bool) -> None:
        match = _OPENING.match(opening)
        assert match is not None
        self._column = column
        self._num_quotes = num_quotes
        self._closing = re.compile(rf"[ ]{{0,3}}{match['char']}{{{len(match['fence'])},}}[ \t]*")
        language = _LANGUAGE.match(match["info"])
        self._highlighter = Highlighter(language[1]) if is_colored and language else None

    def content(self, line: str) -> str | None:
        """The code of a line, without the marks and indents of what it lies in; None ends the block."""
        index = 0
        for _ in range(self._num_quotes):
            mark = _QUOTE.match(line, index)
            if mark is None:
                return None
            index = mark.end()
        line = line[index:]
        num_spaces = len(line) - len(line.lstrip(" "))
        return line[min(num_spaces, self._column) :]

    def is_closed_by(self, content: str) -> bool:
        """Whether a line is the closing fence."""
        return self._closing.fullmatch(content) is not None

    def shown(self, content: str) -> str:
        """A line of code in colour."""
        return self._highlighter.line(content) if self._highlighter else content


class Highlighter:
    """Colours the lines of a language one after the other; an unknown language stays plain.

    The lexer's state is kept between lines where the lexer allows it, so that a long string or comment
    is one, at a cost per line that does not grow.
    """

    def __init__(self, language: str) -> None:
        self._lexer = _find_lexer(_ALIASES.get(language.lower(), language.lower()))
        self._stack = ["root"] if self._lexer is not None and _keeps_state(self._lexer) else None

    def line(self, text: str) -> str:
        """`text` with colours that end in it."""
        if self._lexer is None or not text or len(text) > _MAX_HIGHLIGHTED:
            return text
        runs: list[tuple[str, str]] = []
        for kind, value in self._tokens(self._lexer, text + "\n"):
            style = _style(kind)
            if runs and runs[-1][1] == style:
                value = runs.pop()[0] + value
            runs.append((value, style))
        runs[-1] = (runs[-1][0].removesuffix("\n"), runs[-1][1])
        shown = "".join(value for value, _ in runs)
        # A lexer may drop what it does not expect.
        return "".join(sgr(value, style) for value, style in runs) if shown == text else text

    def _tokens(self, lexer: "Lexer", line: str) -> Iterator[tuple[Any, str]]:
        from pygments.lexer import ExtendedRegexLexer, LexerContext

        if self._stack is None:
            found = lexer.get_tokens_unprocessed(line)
        else:
            context = LexerContext(line, 0, stack=self._stack)
            found = ExtendedRegexLexer.get_tokens_unprocessed(lexer, context=context)  # type: ignore[arg-type]
        for _, kind, value in found:
            yield kind, value
        if self._stack is not None:
            self._stack = context.stack


def _find_lexer(language: str) -> "Lexer | None":
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language) if language in LANGUAGES else None
    except ClassNotFound:
        # An older pygments knows fewer.
        return None


def _keeps_state(lexer: "Lexer") -> bool:
    """Whether the lexer's rules can be driven line by line, with a stack that is handed on."""
    from pygments.lexer import ExtendedRegexLexer, RegexLexer

    if not isinstance(lexer, RegexLexer):
        return False
    base = ExtendedRegexLexer if isinstance(lexer, ExtendedRegexLexer) else RegexLexer
    has_own_way = type(lexer).get_tokens_unprocessed is not base.get_tokens_unprocessed
    if has_own_way and base is ExtendedRegexLexer:
        return False
    # What a lexer's class has made of its `tokens`; there is no public way to it.
    states: dict[str, list[tuple[Any, Any, Any]]] = vars(type(lexer)).get("_tokens", {})
    rules = [rule for state in states.values() for rule in state]
    return bool(rules) and all(_takes_context(action) for _, action, _ in rules)


def _takes_context(action: Any) -> bool:
    """Whether a rule's action is a token type, or a function that takes the context as its third argument."""
    if not isinstance(action, FunctionType):
        return not isinstance(action, MethodType)
    return action.__code__.co_argcount >= 3


def _style(kind: Any) -> str:
    """The SGR parameters of a token type: those of the nearest type above it that has some."""
    name = ".".join(kind)
    while name:
        if name in _STYLES:
            return _STYLES[name]
        name = name.rpartition(".")[0]
    return ""
