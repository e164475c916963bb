"""Folders are uploaded whole, by those who may, and come back as they were."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.artifacts.push import Wanted, push
from llmctl.core.errors import AccessError, BadFileError, NotFoundError, UnreachableError, UsageError
from llmctl.core.progress import SilentProgress
from llmctl.loading.checkpoint import download
from tests.hub import RIGHT_TOKEN, STRANGERS_TOKEN, tiny_safetensors
from tests.hub_uploads import WritableHub, _refusal

REPO = "owner/name"
# Of huggingface_hub's call to its HTTP client.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[WritableHub]:
    with WritableHub() as running:
        for name, value in running.environ(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
        # It was read when the client was imported.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / ".git").mkdir(parents=True)
    (made / "config.json").write_text('{"model_type": "llama"}')
    (made / "README.md").write_text("---\nlicense: mit\n---\n# mine\n")
    (made / "model.safetensors").write_bytes(tiny_safetensors(4096))
    for secret in (".env", ".git/config"):
        (made / secret).write_text("a token")
    return made


def wanted(folder: Path, **changes: object) -> Wanted:
    return Wanted(**{"folder": folder, "repo_id": REPO, **changes})  # type: ignore[arg-type]


def test_what_was_pushed_can_be_pulled(hub: WritableHub, folder: Path) -> None:
    pushed = push(wanted(folder), SilentProgress())
    assert pushed.commit == hub.commit(REPO)
    assert pushed.files == ("README.md", "config.json", "model.safetensors")
    assert pushed.num_bytes == sum((folder / name).stat().st_size for name in pushed.files)
    fetched = download(REPO, revision=None, progress=SilentProgress())
    weights = (fetched.folder / "model.safetensors").read_bytes()
    assert weights == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("is_private", [True, False])
def test_a_repository_is_made_as_private_as_it_was_asked(
    hub: WritableHub, folder: Path, is_private: bool
) -> None:
    push(wanted(folder, is_private=is_private), SilentProgress())
    assert hub.repo(REPO).access == ("private" if is_private else "public")


def test_what_is_to_be_private_does_not_go_into_a_public_repository(hub: WritableHub, folder: Path) -> None:
    push(wanted(folder), SilentProgress())
    before = hub.commit(REPO)
    with pytest.raises(UsageError, match="owner/name is there already, and public"):
        push(wanted(folder, is_private=True), SilentProgress())
    assert hub.commit(REPO) == before
    hub.repo(REPO).access = "private"
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    push(wanted(folder, is_private=True), SilentProgress())
    assert hub.commit(REPO) != before


def test_a_link_to_nowhere_and_a_file_that_cannot_be_read_are_told(
    hub: WritableHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "chat_template.jinja").symlink_to("gone")
    with pytest.raises(BadFileError, match=r"chat_template\.jinja is no file, or a link to none"):
        push(wanted(folder), SilentProgress())
    (folder / "chat_template.jinja").unlink()
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("README.md"))
    with pytest.raises(AccessError, match=r"cannot read .*README\.md"):
        push(wanted(folder), SilentProgress())
    assert hub.requests == []


def test_hidden_files_stay_here(hub: WritableHub, folder: Path) -> None:
    push(wanted(folder), SilentProgress())
    assert not any(name.startswith(".") for name in hub.repo(REPO).files)


def test_large_files_that_are_there_are_not_sent_again(hub: WritableHub, folder: Path) -> None:
    push(wanted(folder), SilentProgress())
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    push(wanted(folder), SilentProgress())
    assert hub.repo(REPO).files["config.json"] == b'{"model_type": "qwen2"}'
    assert sum(seen.method == "PUT" for seen in hub.requests) == 1


def test_a_dry_run_says_what_would_go_and_asks_nobody(hub: WritableHub, folder: Path) -> None:
    told = push(wanted(folder), SilentProgress(), is_dry=True)
    assert told.commit is None
    assert told.files
    assert hub.requests == []


def test_a_model_that_is_not_whole_is_not_pushed(hub: WritableHub, folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(BadFileError, match="cut short"):
        push(wanted(folder), SilentProgress())
    assert hub.requests == []


def test_pickles_are_told(hub: WritableHub, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "llmctl")
    (folder / "old.bin").write_bytes(b"pickle")
    push(wanted(folder), SilentProgress())
    assert "old.bin can run code" in caplog.text


def test_a_card_that_the_hub_does_not_take_is_told_before_anything_is_sent(
    hub: WritableHub, folder: Path
) -> None:
    (folder / "README.md").write_text("---\nlicense: nonsense\n---\n")
    with pytest.raises(BadFileError, match='"license" must be one of'):
        push(wanted(folder), SilentProgress())
    assert hub.objects == {}


@pytest.mark.parametrize(
    ("token", "said"), [("", "needs a token that may write"), (STRANGERS_TOKEN, "HTTP 403")]
)
def test_who_may_not_write_is_told_so(
    hub: WritableHub, folder: Path, monkeypatch: pytest.MonkeyPatch, token: str, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(AccessError, match=said):
        push(wanted(folder), SilentProgress())


def test_an_upload_that_is_refused_midway_is_told_as_what_it_is(
    hub: WritableHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_put", lambda oid, body: _refusal(403))
    with pytest.raises(AccessError, match="HTTP 403"):
        push(wanted(folder), SilentProgress())
    assert hub.repo(REPO).files == {}


def test_without_the_hub_nothing_is_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", RIGHT_TOKEN)
    with pytest.raises(UnreachableError, match="cannot reach the hub"):
        push(wanted(folder), SilentProgress())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnreachableError, match="HF_HUB_OFFLINE is set"):
        push(wanted(folder), SilentProgress())


def test_what_cannot_be_pushed_is_refused(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        push(wanted(tmp_path / "absent"), SilentProgress())
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadFileError, match="no files to upload"):
        push(wanted(tmp_path / "empty"), SilentProgress())
    with pytest.raises(UsageError, match="cannot be a repository"):
        push(wanted(folder, repo_id="a/b/c"), SilentProgress())
    monkeypatch.setenv("LLMCTL_HUB", "modelscope")
    with pytest.raises(UsageError, match="the setting hub is modelscope"):
        push(wanted(folder), SilentProgress())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("kind", ["adapter", "delta", "pickles"])
def test_half_of_anything_is_not_pushed(hub: WritableHub, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / kind
    folder.mkdir()
    if kind == "pickles":
        index = '{"weight_map": {"a": "pytorch_model-00002-of-00002.bin"}}'
        (folder / "config.json").write_text("{}")
        (folder / "pytorch_model.bin.index.json").write_text(index)
        (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"PK")
    else:
        mark, weights = {
            "adapter": ("adapter_config.json", "adapter_model.safetensors"),
            "delta": ("llmctl_delta.json", "delta.safetensors"),
        }[kind]
        (folder / mark).write_text("{}")
        (folder / weights).write_bytes(tiny_safetensors(4096))
        cut(folder / weights)
    with pytest.raises(BadFileError):
        push(wanted(folder), SilentProgress())


def test_what_is_nothing_and_links_that_lead_away_are_told(
    hub: WritableHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "notes" / "NOTES.md").symlink_to(tmp_path / "secret")
    with caplog.at_level("WARNING", "llmctl"):
        push(wanted(tmp_path / "notes"), SilentProgress(), is_dry=True)
    assert "is no model, delta or adapter" in caplog.text
    assert f"is a link to {(tmp_path / 'secret').resolve()}, whose content is uploaded" in caplog.text


def test_a_repository_has_an_owner(folder: Path) -> None:
    with pytest.raises(UsageError, match="'name' cannot be a repository"):
        push(wanted(folder, repo_id="name"), SilentProgress(), is_dry=True)
