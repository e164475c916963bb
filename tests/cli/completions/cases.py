"""What is typed and what it must offer, in every shell alike; see `sample` for the commands."""

DEMOS = {"demo", "demo-base"}
HUB = {"Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B", "qwen:0.6b", "qwen:8b", "hf.co/Qwen/Q3:Q4_K"}
# A shell that ran or expanded one of these would do what the file says, and leave traces.
HOSTILE = {
    "$(touch traces)",
    "`touch traces`",
    "a b",
    "*",
    "it's",
    '"q"',
    "x;touch traces",
    "!!",
    "#y",
    "~nobody",
    "{k,l}",
    "w\\w",
    "ü=é",
    "<in",
    "&z",
    "$HOME",
    "[ab]c",
}
DROPPED = {"-rf", "\x1b[31mred", "tab\there"}
MODELS = DEMOS | HUB | HOSTILE
SESSIONS = {"monday", "my chat"}
FILES, FOLDERS = {"README.md"}, {"sub", "my dir"}
COMMANDS = {"chat", "settings", "check-up", "chart"}

OFFERS: dict[str, set[str]] = {
    "llmctl ": COMMANDS,
    "llmctl ch": {"chat", "check-up", "chart"},
    "llmctl settings ": {"show", "deep"},
    "llmctl settings deep c": {"copy"},
    "llmctl -v settings s": {"show"},
    "llmctl --color always settings s": {"show"},
    "llmctl --color=always settings s": {"show"},
    "llmctl nosuch ": set(),
    "llmctl nosuch --": set(),
    "llmctl chats --": set(),
    "llmctl settings nosuch ": set(),
    "llmctl settings show --na": {"--name"},
    "llmctl chat --de": {"--debug", "--device"},
    "llmctl chat --no": {"--no-plain"},
    "llmctl chat --sec": set(),
    "llmctl chat -- --de": set(),
    "llmctl chat --device ": {"auto", "cuda", "cpu"},
    "llmctl chat --device c": {"cuda", "cpu"},
    "llmctl chat --device=": {"auto", "cuda", "cpu"},
    "llmctl chat --device=c": {"cuda", "cpu"},
    "llmctl chat --device=x": set(),
    "llmctl chat --raw=": set(),
    "llmctl chat --length=": {"auto"},
    "llmctl chat --kind ": {"big", "small"},
    "llmctl chat -p ": set(),
    "llmctl chat -p RE": set(),
    "llmctl chat --prompt ": set(),
    "llmctl chat --prompt=RE": set(),
    "llmctl chat -f ": FILES | FOLDERS,
    "llmctl chat -f RE": FILES,
    "llmctl chat --file RE": FILES,
    "llmctl chat --file=RE": FILES,
    "llmctl chat -f my": {"my dir"},
    "llmctl chat -xf RE": FILES,
    "llmctl chat --into ": FOLDERS,
    "llmctl chat --into=s": {"sub"},
    "llmctl chat ": MODELS | FOLDERS,
    "llmctl chat dem": DEMOS,
    "llmctl chat Qwen/": {"Qwen/Qwen3-0.6B", "Qwen/Qwen3-4B"},
    "llmctl chat demo dem": set(),
    "llmctl chat --raw dem": DEMOS,
    "llmctl chat -p text dem": DEMOS,
    "llmctl chat -p 'some text' dem": DEMOS,
    "llmctl chat -xp text dem": DEMOS,
    "llmctl chat -p -x dem": DEMOS,
    "llmctl chat --prompt=text dem": DEMOS,
    "llmctl chat -- dem": DEMOS,
    "llmctl chat --draft ": MODELS | FOLDERS,
    "llmctl chat --draft=dem": DEMOS,
    "llmctl chat --session ": SESSIONS,
    "llmctl chat --session=mo": {"monday"},
    "llmctl settings show ": {"all", "changed"},
    "llmctl settings show all c": set(),
    "llmctl settings deep copy ": SESSIONS,
    "llmctl settings deep copy monday RE": FILES,
    "llmctl settings deep copy monday x y RE": FILES,
    "llmctl chart x": set(),
}

# What stands left of the cursor after TAB; a folder is gone into, anything else is finished by a space.
COMPLETED: dict[str, str] = {
    "llmctl se": "llmctl settings ",
    "llmctl settings deep co": "llmctl settings deep copy ",
    "llmctl chat --he": "llmctl chat --help ",
    "llmctl chat Qwen/Qwen3-0": "llmctl chat Qwen/Qwen3-0.6B ",
    "llmctl chat qwen:0": "llmctl chat qwen:0.6b ",
    "llmctl chat hf": "llmctl chat hf.co/Qwen/Q3:Q4_K ",
    "llmctl chat hf.co/Qwen/Q3:Q": "llmctl chat hf.co/Qwen/Q3:Q4_K ",
    "llmctl chat --draft=qwen:0": "llmctl chat --draft=qwen:0.6b ",
    "llmctl chat --draft qwen:0": "llmctl chat --draft qwen:0.6b ",
    "llmctl chat --device=cu": "llmctl chat --device=cuda ",
    "llmctl chat -f RE": "llmctl chat -f README.md ",
    "llmctl chat --file=RE": "llmctl chat --file=README.md ",
    "llmctl chat -f sub/in": "llmctl chat -f sub/inner.txt ",
    "llmctl chat --into=su": "llmctl chat --into=sub/",
    "llmctl chat my": "llmctl chat my\\ dir/",
    "llmctl chat my\\ d": "llmctl chat my\\ dir/",
    "llmctl chat ~/m": "llmctl chat ~/models/",
    "llmctl chat -p RE": "llmctl chat -p RE",
    "llmctl nosuch RE": "llmctl nosuch RE",
}


def unique_prefix(name: str) -> str:
    """As much of a model's name as no other has."""
    others = (MODELS | FOLDERS) - {name}
    return next(
        name[:length]
        for length in range(1, len(name) + 1)
        if not any(other.startswith(name[:length]) for other in others)
    )
