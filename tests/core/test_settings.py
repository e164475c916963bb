"""Who wins among flags, variables and files, and that no bad setting passes in silence."""

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest

from llmctl.core import settings
from llmctl.core.errors import BadFileError, LlmctlError, NotFoundError, UsageError
from llmctl.core.settings import Settings


class House:
    """A user with a settings file, a project folder and an environment."""

    def __init__(self, root: Path) -> None:
        self.project = root / "project"
        self.project.mkdir()
        self.user_file = root / "config" / "config.toml"
        self.user_file.parent.mkdir()
        self.project_file = self.project / "llmctl.toml"
        self.environ = {"LLMCTL_CONFIG_HOME": str(root / "config"), "HOME": str(root), "PATH": "/bin"}

    def load(self) -> Settings:
        """The settings that a command in the project folder would see."""
        return settings.load(self.environ, self.project)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_where_nothing_is_set_the_defaults_hold(house: House) -> None:
    assert house.load() == Settings()
    assert house.load().origins == {}


# Places from the strongest to the weakest, with what each says of the device.
PLACES = {"flag": "cuda", "variable": "xpu", "project": "mps", "user": "cpu"}


@pytest.mark.parametrize(
    "places", [places for n in range(1, 5) for places in itertools.combinations(PLACES, n)], ids="+".join
)
def test_the_strongest_place_wins_and_is_named(house: House, places: tuple[str, ...]) -> None:
    if "user" in places:
        house.user_file.write_text('device = "cpu"')
    if "project" in places:
        house.project_file.write_text('device = "mps"')
    if "variable" in places:
        house.environ["LLMCTL_DEVICE"] = "xpu"
    found = house.load().with_flags({"device": PLACES["flag"] if "flag" in places else None})
    origins = {
        "flag": "--device",
        "variable": "LLMCTL_DEVICE",
        "project": str(house.project_file),
        "user": str(house.user_file),
    }
    # PLACES is in order of strength, and so is each combination of it.
    assert found.device == PLACES[places[0]]
    assert found.origins == {"device": origins[places[0]]}


def test_places_are_laid_over_each_other_key_by_key(house: House) -> None:
    house.user_file.write_text('temperature = 0.1\ntop_k = 1\nseed = 1\nmodel = "user/model"')
    house.project_file.write_text('top_k = 2\nseed = 2\nsystem = "Be brief."')
    house.environ["LLMCTL_SEED"] = "3"
    found = house.load().with_flags({"min_p": 0.4, "top_p": None})
    assert found.sampling == {"temperature": 0.1, "top_k": 2, "seed": 3, "min_p": 0.4}
    assert (found.model, found.system) == ("user/model", "Be brief.")
    assert found.origins == {
        "temperature": str(house.user_file),
        "model": str(house.user_file),
        "top_k": str(house.project_file),
        "system": str(house.project_file),
        "seed": "LLMCTL_SEED",
        "min_p": "--min-p",
    }


def test_flags_leave_the_settings_below_as_they_were(house: House) -> None:
    house.project_file.write_text("temperature = 0.1")
    below = house.load()
    below.with_flags({"temperature": 0.9, "device": "cpu"})
    assert below == house.load()
    assert below.sampling == {"temperature": 0.1}


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("LLMCTL_TEMPERATURE", "0.5", "temperature", 0.5),
        ("LLMCTL_TEMPERATURE", "0", "temperature", 0.0),
        ("LLMCTL_TOP_K", "7", "top_k", 7),
        ("LLMCTL_STOP", "END, all", "stop", ("END, all",)),
        ("LLMCTL_STOP_TOKEN_IDS", "1,2", "stop_token_ids", (1, 2)),
        ("LLMCTL_LOGPROBS", "0", "logprobs", 0),
    ],
)
def test_a_variable_is_read_in_the_type_of_its_key(
    house: House, variable: str, text: str, key: str, value: Any
) -> None:
    house.environ[variable] = text
    assert house.load().sampling == {key: value}


def test_an_empty_variable_counts_as_not_set(house: House) -> None:
    house.environ |= {"LLMCTL_TEMPERATURE": "", "LLMCTL_MODEL": ""}
    assert house.load() == Settings()


def test_an_openai_name_in_a_file_is_kept_under_ours(house: House) -> None:
    house.project_file.write_text("max_tokens = 5")
    assert house.load().sampling == {"max_new_tokens": 5}
    assert house.load().origins == {"max_new_tokens": str(house.project_file)}


BAD = {
    "wrong choice": ("device", "gpu", "device must be one of auto, cuda, xpu, npu, mps, cpu, not 'gpu'"),
    "out of range": ("temperature", 200.0, "temperature must be at least 0 and at most 100, not 200.0"),
    "not whole": ("top_k", "many", "top_k must be a whole number, not 'many'"),
}


@pytest.mark.parametrize(("key", "value", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("place", ["flag", "variable", "project", "user"])
def test_a_bad_value_is_refused_with_place_key_and_value(
    house: House, place: str, key: str, value: Any, message: str
) -> None:
    flags = {}
    origin = f"--{key.replace('_', '-')}"
    if place == "flag":
        flags[key] = value
    elif place == "variable":
        origin = f"LLMCTL_{key.upper()}"
        house.environ[origin] = str(value)
    else:
        file = house.project_file if place == "project" else house.user_file
        origin = str(file)
        file.write_text(f"{key} = {value!r}")
    with pytest.raises(UsageError) as caught:
        house.load().with_flags(flags)
    assert caught.value.message == f"{origin}: {message}"


@pytest.mark.parametrize(
    "line",
    [
        "temperature = true",
        "temperature = nan",
        "temperature = inf",
        'seed = "1"',
        "stop = 5",
        "model = 5",
        'model = ""',
        "device = []",
        "top_k = 2020-01-01",
        "[temperature]",
        "color = false",
    ],
)
def test_a_value_of_the_wrong_type_in_a_file_is_refused(house: House, line: str) -> None:
    house.project_file.write_text(line)
    with pytest.raises(UsageError, match=r"llmctl\.toml: \w+ must be "):
        house.load()


@pytest.mark.parametrize("name", ["user_file", "project_file"])
def test_a_misspelt_key_in_a_file_gets_the_nearest_one(house: House, name: str) -> None:
    file: Path = getattr(house, name)
    file.write_text("temprature = 1")
    with pytest.raises(UsageError) as caught:
        house.load()
    assert caught.value.message == f"{file}: unknown key 'temprature'"
    assert caught.value.hint == "did you mean 'temperature'?"


@pytest.mark.parametrize("key", ["trust_remote_code", "sampling", "origins"])
@pytest.mark.parametrize("name", ["user_file", "project_file"])
def test_a_file_cannot_switch_on_remote_code_or_reach_inside(house: House, name: str, key: str) -> None:
    getattr(house, name).write_text(f"{key} = true")
    with pytest.raises(UsageError, match=f"unknown key '{key}'"):
        house.load()


def test_a_variable_cannot_switch_on_remote_code(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.environ["LLMCTL_TRUST_REMOTE_CODE"] = "1"
    caplog.set_level(logging.WARNING, logger="llmctl")
    assert house.load() == Settings()
    assert "LLMCTL_TRUST_REMOTE_CODE" in caplog.text


def test_an_unknown_variable_is_warned_of(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.environ |= {"LLMCTL_TEMPRATURE": "1", "LLMCTL_SEED": "1", "OTHER": "1"}
    caplog.set_level(logging.WARNING, logger="llmctl")
    assert house.load().sampling == {"seed": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "the variable LLMCTL_TEMPRATURE is not known to llmctl and does nothing (llmctl config show)"
    ]


def test_variables_that_are_read_elsewhere_are_known(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.environ |= dict.fromkeys(settings.OTHER_VARIABLES - {"LLMCTL_CONFIG_HOME"}, "on")
    caplog.set_level(logging.WARNING, logger="llmctl")
    assert house.load() == Settings()
    assert caplog.records == []


@pytest.mark.parametrize(
    "content",
    [
        b"temperature = ",
        b"a = 1\na = 2",
        b"\xff\xfe",
        b"= 1",
        b"seed = 1" + b"0" * 5000,
        b"x = " + b"[" * 9999,
    ],
    ids=["cut off", "twice", "not UTF-8", "no key", "too many digits", "too deep"],
)
@pytest.mark.parametrize("name", ["user_file", "project_file"])
def test_a_file_that_is_not_toml_is_refused_by_its_path(house: House, name: str, content: bytes) -> None:
    file: Path = getattr(house, name)
    file.write_bytes(content)
    with pytest.raises(BadFileError) as caught:
        house.load()
    assert caught.value.message.startswith(f"{file} is not valid TOML: ")


def test_a_folder_in_the_place_of_a_file_is_refused(house: House) -> None:
    house.project_file.mkdir()
    with pytest.raises(BadFileError, match=r"^cannot read .*llmctl\.toml: Is a directory$"):
        house.load()


def test_a_file_in_the_place_of_the_folder_is_no_settings(house: House) -> None:
    house.environ["LLMCTL_CONFIG_HOME"] = str(house.user_file)
    house.user_file.touch()
    assert house.load() == Settings()


def test_without_arguments_this_process_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "llmctl.toml").write_text("seed = 1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMCTL_TOP_K", "2")
    assert settings.load().sampling == {"seed": 1, "top_k": 2}


def test_a_folder_that_was_deleted_under_the_user_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(NotFoundError, match=r"^the present folder has been deleted$"):
        settings.load()


def test_every_setting_can_be_a_variable_and_stand_in_a_file(house: House) -> None:
    texts = {"device": "cpu", "dtype": "float32", "color": "never", "model": "m", "system": "s", "stop": "x"}
    texts |= {
        "url": "localhost:1",
        "reasoning": "fold",
        "thinking": "on",
        "overflow": "drop",
        "style": "rich",
        "log": "off",
        "history": "off",
        "hub": "modelscope",
        "quantization": "int8",
        "gpus": "0,1",
        "max_gpu_memory": "20GiB",
    }
    for key in settings.KEYS:
        house.environ[f"LLMCTL_{key.upper()}"] = texts.get(key, "1")
    from_variables = house.load()
    house.environ = {
        key: value for key, value in house.environ.items() if key not in from_variables.origins.values()
    }
    lines = [f"{key} = {texts[key]!r}" if key in texts else f"{key} = 1" for key in settings.KEYS]
    house.user_file.parent.mkdir(parents=True, exist_ok=True)
    house.user_file.write_text("\n".join(lines).replace("stop_token_ids = 1", "stop_token_ids = [1]"))
    assert from_variables.origins.keys() == set(settings.KEYS)
    assert house.load() == from_variables


def test_what_a_flag_gets_wrong_is_an_error_for_the_user() -> None:
    with pytest.raises(LlmctlError, match=r"^--max-new-tokens: max_new_tokens must be at least 1, not 0$"):
        Settings().with_flags({"max_new_tokens": 0})


def test_a_project_cannot_send_conversations_to_a_server(house: House) -> None:
    house.project_file.write_text("url = 'http://stranger.example/v1'")
    with pytest.raises(UsageError, match=r"llmctl\.toml: url cannot be set by a project's file") as caught:
        house.load()
    assert "--url" in (caught.value.hint or "")


def test_a_switch_that_says_neither_on_nor_off_is_refused(house: House) -> None:
    house.environ["LLMCTL_NATIVE"] = "banana"
    with pytest.raises(UsageError, match=r"^LLMCTL_NATIVE must be on or off, not 'banana'$"):
        house.load()
    house.environ["LLMCTL_NATIVE"] = "Off"
    assert house.load() == Settings()


@pytest.mark.parametrize(
    ("key", "text"),
    [("num_gpus", "0"), ("timeout", "0"), ("context", "0"), ("context", "1.5"), ("log", "yes")],
)
def test_a_setting_out_of_range_is_refused_by_its_variable(house: House, key: str, text: str) -> None:
    house.environ[f"LLMCTL_{key.upper()}"] = text
    with pytest.raises(UsageError, match=f"^LLMCTL_{key.upper()}: {key} must be "):
        house.load()
