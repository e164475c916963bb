"""Downloads models from the hub or ModelScope into a cache, and uses what is there when the hub is away."""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from llmctl.core import settings
from llmctl.core.errors import BadFileError, LlmctlError, NotFoundError, UnreachableError, UsageError
from llmctl.core.progress import Progress
from llmctl.loading import contents
from llmctl.loading.gguf.names import choose_gguf
from llmctl.loading.hub.api import Hub
from llmctl.loading.hub.cache import RepoCache, wants_gguf
from llmctl.loading.hub.fetch import RemoteFile, Session, fetch
from llmctl.loading.hub.modelscope import ModelScope
from llmctl.loading.hub.site import Site

log = logging.getLogger(__name__)

# Shards come side by side: the hub limits each connection, not their sum.
_NUM_CONNECTIONS = 4
_WEIGHTS = (".safetensors", ".gguf")


BeforeWeights = Callable[[Path, Sequence[RemoteFile]], None]
"""Told the folder, which holds all but the weights, and the weights, before any of them comes."""

Wanted = Callable[[Collection[str]], Sequence[str]]
"""From the names in a repository to those that are to come, weights last; none: what a model needs."""


def download(
    repo_id: str,
    *,
    revision: str | None = None,
    progress: Progress,
    gguf: str | None = None,
    before_weights: BeforeWeights | None = None,
    wanted: Wanted | None = None,
) -> Path:
    """The folder with the files of `repo_id` that a model needs, fetched as far as they are not in the cache.

    Of a repository of GGUF files it is the one file: its only one, or the one that `gguf` means (a name, or
    the tag at its end). The setting `hub` says from where. When the hub cannot be asked, a complete cached
    copy is used. An interrupted download keeps what it has, and the next one goes on there. What
    `before_weights` raises ends it before any weights come. `wanted` chooses other files. Raises
    `NotFoundError`, `AccessError` (private, gated, bad token), `UnreachableError`, `DoesNotFitError` (disk),
    `BadFileError` (no safetensors; bytes that are not those the hub lists), `AmbiguousError` (several GGUF
    files), `UsageError` (a revision that cannot be one).
    """
    _check_names(repo_id, revision)
    progress.stage("resolve")
    site = _site(repo_id, revision)
    cache = RepoCache(root=site.cache_root, repo_id=repo_id, variable=site.cache_variable)
    if site.is_offline:
        return _offline_copy(cache, site, gguf, wanted)
    try:
        commit, files = site.list_files()
    except LlmctlError as error:
        copy = cache.complete_snapshot(site.asked_revision, gguf=gguf, wanted=wanted)
        if copy is None or _is_revision_gone(error):
            raise
        log.warning("%s; using the cached copy %s", error.message, copy)
        return copy
    named = wanted(files) if wanted is not None else ()
    chosen = [files[name] for name in named] or _choose(repo_id, files, gguf)
    if contents.is_adapter([file.name for file in chosen]):
        # Its base tells what can be run, and has its own look.
        before_weights = None
    with site.errors(hint="what has arrived is kept: the same command goes on from there"):
        _bring(
            chosen, commit=commit, site=site, cache=cache, progress=progress, before_weights=before_weights
        )
    is_gguf = len(chosen) == 1 and chosen[0].name.endswith(".gguf")
    return cache.snapshot(commit) / chosen[0].name if is_gguf else cache.snapshot(commit)


def _site(repo_id: str, revision: str | None) -> Site:
    chosen = settings.load(warns=False)
    if chosen.hub != "modelscope":
        return Hub.from_environ(repo_id, revision=revision)
    site = ModelScope.from_environ(repo_id, revision=revision)
    log.info("%s: from %s at %s (%s)", repo_id, site.name, site.endpoint, chosen.origins["hub"])
    return site


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


def _offline_copy(cache: RepoCache, site: Site, gguf: str | None, wanted: Wanted | None) -> Path:
    copy = cache.complete_snapshot(site.asked_revision, gguf=gguf, wanted=wanted)
    if copy is None:
        name = cache.repo_id if gguf is None else f"{cache.repo_id} ({gguf})"
        asked = name if site.revision is None else f"{name} at {site.revision}"
        raise UnreachableError(
            f"HF_HUB_OFFLINE is set, and the cache {cache.root} has no complete copy of {asked}",
            hint="unset HF_HUB_OFFLINE to download it",
        )
    log.info("offline: using the cached copy %s", copy)
    return copy


def _is_revision_gone(error: LlmctlError) -> bool:
    """Whether the hub answered that it knows the repository but not this revision."""
    from huggingface_hub.errors import RevisionNotFoundError

    return isinstance(error.__cause__, RevisionNotFoundError)


def _choose(repo_id: str, files: Mapping[str, RemoteFile], gguf: str | None) -> list[RemoteFile]:
    """What a model needs of a repository, weights last."""
    root = [name for name in files if "/" not in name]
    if wants_gguf(root, gguf):
        return [files[choose_gguf(repo_id, root, gguf)]]
    contents.refuse_unusable(repo_id, root)
    names = contents.small_names(root)
    if contents.MODULES in root:
        names += contents.module_names(files)
    if contents.is_adapter(root):
        names += contents.adapter_names(root)
    elif contents.CONFIG in root:
        names += contents.weight_names(root)
    return [files[name] for name in names]


def _bring(
    files: Sequence[RemoteFile],
    *,
    commit: str,
    site: Site,
    cache: RepoCache,
    progress: Progress,
    before_weights: BeforeWeights | None,
) -> None:
    """Fetch and link what the snapshot lacks, in order, so that a snapshot with weights is a whole one."""
    lacking = [file for file in files if not cache.has(file, commit)]
    absent = [file for file in lacking if not cache.has_blob(file)]
    if absent:
        cache.check_space(absent)
        progress.stage("download", total_bytes=sum(file.num_bytes for file in absent))
    on_bytes = _counting(progress)
    weights = [file for file in files if file.name.endswith(_WEIGHTS)]
    small = {file.name for file in files if file not in weights}
    for is_small in (True, False):
        part = [file for file in lacking if (file.name in small) is is_small]
        _fetch_all([file for file in part if file in absent], site=site, cache=cache, on_bytes=on_bytes)
        for file in part:
            cache.link(file, commit)
        if is_small:
            _check_index(cache.snapshot(commit), {file.name for file in files}, cache.repo_id)
            if before_weights is not None and any(file in absent for file in weights):
                before_weights(cache.snapshot(commit), weights)
    cache.point(site.asked_revision, commit)


def _check_index(folder: Path, names: set[str], repo_id: str) -> None:
    """Refuse a repository that lacks a shard before gigabytes of the others have come."""
    if contents.CONFIG not in names or contents.SINGLE_FILE in names:
        return
    shards = contents.indexed_shards(folder)
    missing = [name for name in shards if name not in names]
    if missing:
        raise BadFileError(
            f"{repo_id} lacks {contents.shown(missing)}, named in its {contents.INDEX}",
            hint="its makers have not uploaded all of it: try another --revision, or ask them",
        )


def _counting(progress: Progress) -> Callable[[int], None]:
    """What may be told of bytes by several threads."""
    one_at_a_time = threading.Lock()

    def count(num_bytes: int) -> None:
        with one_at_a_time:
            progress.advance(num_bytes)

    return count


def _fetch_all(
    files: Sequence[RemoteFile], *, site: Site, cache: RepoCache, on_bytes: Callable[[int], None]
) -> None:
    session = Session(
        headers=site.headers, timeout_s=site.timeout_s, on_bytes=on_bytes, stop=threading.Event()
    )
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
