import pytest

from llmctl.adapters.rules import Between, OneOf
from llmctl.adapters.spec import BUILT_IN, PLUGIN_RANK, read_rows
from llmctl.core.errors import BadFileError

WHOLE = """
[[family]]
id = "glm-4"
title = "GLM-4"
link = "https://example.org"
about = "One line."
source = "its card"
kind = "vision-language"
generates = "none"
template = "chatglm3"
template_wins = true
examples = ["a/glm-4"]
note = "A note."
[family.match]
names = ["glm-4", ["glm", "4"]]
exact = ["glm"]
model_types = ["glm", "chatglm"]
[family.facts]
model_type = ["glm"]
architectures = ["GlmForCausalLM"]
tokens = ["<|user|>"]
config = { vocab_size = 1, "a.b" = ["x", true], c.d = 2.5, size = { min = 1, max = 9 }, up = { min = 3 } }
[family.stop]
strings = ["###"]
token_ids = [2]
[family.generation]
temperature = 0.6
top_k = 20
[family.loading]
trust_remote_code = true
dtype = "bfloat16"
eos_token = "</s>"
added_tokens = ["<sep>"]
[family.code]
class = "llmctl.adapters.base:FamilyAdapter"
"""


def with_row(*lines: str) -> str:
    return "\n".join(['[[family]]\nid = "x"\ntemplate = "tokenizer"\nmatch = { names = ["x"] }', *lines])


def test_a_row_may_say_all_of_this() -> None:
    (family,) = read_rows(WHOLE, where="x.toml", origin="plugin p", origin_rank=PLUGIN_RANK)
    assert (family.id, family.title, family.kind, family.generates) == (
        "glm-4",
        "GLM-4",
        "vision-language",
        "none",
    )
    assert (family.template, family.template_wins, family.note) == ("chatglm3", True, "A note.")
    assert family.name_rule.names == (("glm-4",), ("glm", "4"))
    assert (family.name_rule.exact, family.name_rule.model_types) == (("glm",), ("glm", "chatglm"))
    assert family.fact_rule.config == {
        "vocab_size": OneOf((1,)),
        "a.b": OneOf(("x", True)),
        "c.d": OneOf((2.5,)),
        "size": Between(low=1, high=9),
        "up": Between(low=3),
    }
    assert (family.stop, family.stop_token_ids) == (("###",), (2,))
    assert family.generation == {"temperature": 0.6, "top_k": 20}
    assert family.loading["added_tokens"] == ["<sep>"]
    assert (family.origin, family.origin_rank) == ("plugin p", PLUGIN_RANK)
    assert family.code == "llmctl.adapters.base:FamilyAdapter"


def test_a_row_need_not_say_more_than_this() -> None:
    (family,) = read_rows(with_row(), where="x.toml")
    assert (family.title, family.kind, family.generates, family.origin) == (
        "x",
        "decoder",
        "causal",
        BUILT_IN,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id = ", "x.toml is not valid TOML"),
        ("", "x.toml must hold rows"),
        ("family = 3", "x.toml must hold rows"),
        ("family = [3]", "x.toml must hold rows"),
        ("[[families]]\nid = 'x'", "x.toml must hold rows"),
        ("[[family]]\ntemplate = 'tokenizer'", "x.toml, row 1: id is missing"),
        ("[[family]]\nid = 3", "x.toml, row 1: id must be a string"),
        ("[[family]]\nid = 'X Y'", "x.toml, family 'X Y': id may hold small letters"),
        ("[[family]]\nid = 'x'", "x.toml, family 'x': template is missing"),
        ("[[family]]\nid = 'x'\ntemplate = 'tokenizer'", "x.toml, family 'x': match is missing"),
        (with_row("colour = 'red'"), "x.toml, family 'x': colour is not known here"),
        (with_row().replace("names =", "nams = 1, names ="), "match.nams is not known here"),
        (with_row("title = ''"), "title must be a string that is not empty, not ''"),
        (with_row("kind = 'cat'"), "kind must be one of decoder, encoder-decoder"),
        (with_row("generates = 'music'"), "generates must be one of causal"),
        (with_row("template_wins = 1"), "template_wins must be true or false, not 1"),
        (with_row("examples = 'a'"), "examples must be a list of strings"),
        (
            with_row("about = '" + "x" * 101 + "'"),
            "about must be one line of at most 100 characters, not 101",
        ),
        (with_row("facts = 3"), "facts must be a table, not 3"),
        (with_row("facts.tokens = ['']"), "facts.tokens must be a list of strings that are not empty"),
        (with_row("facts.config = { a = [] }"), "facts.config.a must be a string, a number"),
        (with_row("facts.config = { a = { min = 'x' } }"), "facts.config.a must have numbers"),
        (with_row("facts.config = { a = [[1]] }"), "facts.config.a must be a string, a number"),
        (with_row("stop.token_ids = [-1]"), "stop.token_ids must be a list of whole numbers from 0"),
        (with_row("stop.token_ids = [true]"), "stop.token_ids must be a list of whole numbers from 0"),
        (with_row("stop.words = ['a']"), "stop.words is not known here"),
        (with_row("generation.temperature = -1"), "generation.temperature is wrong: temperature must be at"),
        (with_row("generation.heat = 1"), "generation.heat is not known here"),
        (with_row("generation.stop = ['a']"), "generation.stop is not known here"),
        (with_row("loading.device = 'cuda'"), "loading.device is not known here"),
        (with_row("loading.dtype = 'int8'"), "loading.dtype must be one of float32, bfloat16, float16"),
        (with_row("loading.trust_remote_code = 1"), "loading.trust_remote_code must be true or false"),
        (with_row("loading.pad_token_id = true"), "loading.pad_token_id must be a whole number"),
        (with_row("loading.added_tokens = [1]"), "loading.added_tokens must be a list of strings"),
        (with_row("code.class = 'os.system'"), "code.class must be module:Class"),
        (with_row("code.klass = 'a:b'"), "code.klass is not known here"),
        (
            with_row().replace("names = ['x']", "").replace('["x"]', "['X_y']"),
            "match.names cannot match 'X_y'",
        ),
        (with_row().replace('["x"]', "[[]]"), "match.names must hold strings and lists of strings"),
        (with_row().replace('["x"]', "[3]"), "match.names must hold strings and lists of strings"),
        (with_row().replace('["x"]', "3"), "match.names must be a list"),
        (with_row() + "\n" + with_row(), "x.toml: two families have the id 'x'"),
        (with_row().replace("tokenizer", "vicuna_v1"), "family 'x': no template is called 'vicuna_v1'"),
        (with_row("template_wins = true").replace("tokenizer", "none"), "template_wins cannot be"),
        ("a = " + "[" * 5000, "x.toml is not valid TOML"),
    ],
)
def test_a_mistake_names_file_row_and_key(text: str, message: str) -> None:
    with pytest.raises(BadFileError) as caught:
        read_rows(text, where="x.toml", templates={"vicuna_v1.1"})
    assert caught.value.message.startswith("x.toml")
    assert message in caught.value.message


def test_a_literal_in_capitals_is_told_how_to_be_written() -> None:
    with pytest.raises(BadFileError) as caught:
        read_rows(with_row().replace('["x"]', '["Llama_2"]'), where="x.toml")
    assert caught.value.hint == "names are compared as 'llama-2'"


def test_an_unknown_template_is_told_what_is_near() -> None:
    with pytest.raises(BadFileError) as caught:
        read_rows(
            with_row().replace("tokenizer", "vicuna"), where="x.toml", templates={"vicuna_v1.1", "zephyr"}
        )
    assert caught.value.hint == "near: vicuna_v1.1"
