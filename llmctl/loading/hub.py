"""Downloads models from the hub into huggingface_hub's cache, and uses what is there when the hub is away."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from llmctl.core.errors import LlmctlError, NotFoundError, UnreachableError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.fetch import RemoteFile, Session, fetch
from llmctl.loading.hub_api import Hub
from llmctl.loading.hub_cache import MAIN, RepoCache

log = logging.getLogger(__name__)

# Shards come side by side: the hub limits each connection, not their sum.
_NUM_CONNECTIONS = 4


def download(repo_id: str, *, revision: str | None = None, progress: Progress) -> Path:
    """The folder with the files of `repo_id` that a model needs, fetched as far as they are not in the cache.

    When the hub cannot be asked, a complete cached copy is used. An interrupted download keeps what it has,
    and the next one goes on there. Raises `NotFoundError`, `AccessError` (private, gated, bad token),
    `UnreachableError`, `DoesNotFitError` (disk), `BadFileError` (no safetensors; bytes that are not those
    the hub lists), `UsageError` (a revision that cannot be one).
    """
    _check_names(repo_id, revision)
    progress.stage("resolve")
    hub = Hub.from_environ(repo_id, revision=revision)
    cache = RepoCache(root=hub.cache_root, repo_id=repo_id)
    if hub.is_offline:
        return _offline_copy(cache, revision)
    try:
        commit, files = hub.list_files()
    except LlmctlError as error:
        folder = cache.complete_snapshot(revision)
        if folder is None or _is_revision_gone(error):
            raise
        log.warning("%s; using the cached copy %s", error.message, folder)
        return folder
    with hub.errors(hint="what has arrived is kept: the same command goes on from there"):
        _bring(_choose(repo_id, files), commit=commit, hub=hub, cache=cache, progress=progress)
    return cache.snapshot(commit)


def _check_names(repo_id: str, revision: str | None) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise NotFoundError(
            f"no model {repo_id!r}: it is no folder here, and no id of the hub can look like this",
            hint="a hub id is owner/name, as in Qwen/Qwen3-0.6B",
        ) from error
    if revision is not None and (not revision or ".." in revision or revision.startswith("/")):
        raise UsageError(
            f"--revision cannot be {revision!r}", hint="give a branch, a tag, a commit or refs/pr/N"
        )


def _offline_copy(cache: RepoCache, revision: str | None) -> Path:
    folder = cache.complete_snapshot(revision)
    if folder is None:
        wanted = cache.repo_id if revision is None else f"{cache.repo_id} at {revision}"
        raise UnreachableError(
            f"HF_HUB_OFFLINE is set, and the cache {cache.root} has no complete copy of {wanted}",
            hint="unset HF_HUB_OFFLINE to download it",
        )
    log.info("offline: using the cached copy %s", folder)
    return folder


def _is_revision_gone(error: LlmctlError) -> bool:
    """Whether the hub answered that it knows the repository but not this revision."""
    from huggingface_hub.errors import RevisionNotFoundError

    return isinstance(error.__cause__, RevisionNotFoundError)


def _choose(repo_id: str, files: Mapping[str, RemoteFile]) -> list[RemoteFile]:
    """What a model needs of a repository, weights last."""
    root = [name for name in files if "/" not in name]
    contents.refuse_unusable(repo_id, root)
    names = contents.small_names(root)
    if contents.CONFIG in root:
        names += contents.weight_names(root)
    return [files[name] for name in names]


def _bring(
    files: Sequence[RemoteFile], *, commit: str, hub: Hub, cache: RepoCache, progress: Progress
) -> None:
    """Fetch and link what the snapshot lacks, in order, so that a snapshot with weights is a whole one."""
    lacking = [file for file in files if not cache.has(file, commit)]
    absent = [file for file in lacking if not cache.has_blob(file)]
    if absent:
        cache.check_space(absent)
        progress.stage("download", total_bytes=sum(file.num_bytes for file in absent))
        _fetch_all(absent, hub=hub, cache=cache, on_bytes=progress.advance)
    for file in lacking:
        cache.link(file, commit)
    cache.point(hub.revision or MAIN, commit)


def _fetch_all(
    files: Sequence[RemoteFile], *, hub: Hub, cache: RepoCache, on_bytes: Callable[[int], None]
) -> None:
    one_at_a_time = threading.Lock()

    def count(num_bytes: int) -> None:
        with one_at_a_time:
            on_bytes(num_bytes)

    session = Session(headers=hub.headers, timeout_s=hub.timeout_s, on_bytes=count, stop=threading.Event())
    with ThreadPoolExecutor(max_workers=_NUM_CONNECTIONS) as pool:
        try:
            for done in as_completed([pool.submit(_fetch_one, file, cache, session) for file in files]):
                done.result()
        finally:
            # After an error or Ctrl-C the other fetches end at their next bytes, and keep what they have.
            session.stop.set()


def _fetch_one(file: RemoteFile, cache: RepoCache, session: Session) -> None:
    with cache.locked(file):
        if cache.has_blob(file):  # another process was faster
            session.on_bytes(file.num_bytes)
        else:
            fetch(file, cache.blob(file), session)
