"""Uploading a folder to the Hugging Face hub, or to a server that speaks its protocol (`HF_ENDPOINT`), or to ModelScope."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput, PandaError
from pandallm.model.folder import first_line
from pandallm.progress import SILENT, Progress
from pandallm.release.bundle import check_sums, read_release

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")

_MODELSCOPE = "modelscope:"


def check_repo(repo: str) -> None:
    """BadInput where `repo` is no `owner/name` (with `modelscope:` before it for that hub)."""
    repo = repo.removeprefix(_MODELSCOPE)
    if not _REPO.fullmatch(repo) or ".." in repo or "--" in repo:
        raise BadInput(f"--push {repo}: write the repository as OWNER/NAME, such as my-name/my-model.")


@contextmanager
def _without_xet(server: str) -> Iterator[None]:
    """Only the hub itself speaks Xet: elsewhere its client would try it again and again and then fail."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = before or not server.rstrip("/").endswith("//huggingface.co")
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def push_folder(
    folder: Path,
    repo: str,
    kind: str,
    *,
    private: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    progress: Progress = SILENT,
) -> str:
    """Upload a release folder in one commit; returns the commit's address.

    repo: `owner/name`, or `modelscope:owner/name`. kind: model or data. endpoint, token: of another server, else HF_ENDPOINT and the login of `hf auth login` (or HF_TOKEN).
    The folder's sums are checked first. Files of the repository that the release lacks stay there.

    Raises BadInput for a missing login or no right to write, PandaError where the server cannot be reached or says no.
    """
    from huggingface_hub import HfApi, errors

    read_release(folder)
    check_sums(folder, progress)
    repo_type = "dataset" if kind == "data" else "model"
    if repo.startswith(_MODELSCOPE):
        return _push_modelscope(folder, repo.removeprefix(_MODELSCOPE), repo_type, private, progress)
    api = HfApi(endpoint=endpoint, token=token)
    server = api.endpoint
    try:
        with _without_xet(server):
            api.create_repo(repo, repo_type=repo_type, private=private or None, exist_ok=True)
            progress.say(f"Uploading to {server}/{'datasets/' if kind == 'data' else ''}{repo} …")
            done: Any = api.upload_folder(
                repo_id=repo,
                repo_type=repo_type,
                folder_path=folder,
                commit_message="Release made with pandallm",
                ignore_patterns=[".*", "*/.*"],
            )
    except errors.LocalTokenNotFoundError:
        raise BadInput(f"No login for {server}: run `hf auth login`, or set HF_TOKEN, and push again.") from None
    except errors.GatedRepoError:
        raise BadInput(f"{repo} on {server} is gated: accept its conditions there, then push again.") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"{repo} is not on {server}, or your login cannot see it: check the name, or run `hf auth login`."
        ) from None
    except errors.HfHubHTTPError as e:
        status = getattr(e.response, "status_code", None)
        if status == 401:
            raise BadInput(
                f"{server} does not know your login: run `hf auth login`, or set HF_TOKEN, and push again."
            ) from None
        if status == 403:
            raise BadInput(
                f"Your login may not write to {repo} on {server}: use a token with write access, or another name."
            ) from None
        raise PandaError(
            f"{server} refused the upload of {folder} ({first_line(e)}); push the folder again with `panda release {folder} --push {repo}`."
        ) from None
    except (OSError, errors.OfflineModeIsEnabled) as e:
        raise PandaError(
            f"{server} could not be reached ({first_line(e)}); push again with `panda release {folder} --push {repo}`."
        ) from None
    except Exception as e:
        # The client's own connection errors share no base class with the others.
        if type(e).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "requests"):
            raise
        raise PandaError(
            f"{server} could not be reached ({first_line(e)}); push again with `panda release {folder} --push {repo}`."
        ) from None
    return str(getattr(done, "commit_url", done))


def _push_modelscope(folder: Path, repo: str, repo_type: str, private: bool, progress: Progress) -> str:
    try:
        from modelscope_hub import HubApi  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise BadInput(
            f"--push modelscope:{repo} needs the package modelscope-hub: `pip install modelscope-hub`."
        ) from None
    api: Any = HubApi()
    try:
        if not api.repo_exists(repo, repo_type):
            api.create_repo(repo, repo_type, visibility="private" if private else "public")
        progress.say(f"Uploading to ModelScope: {repo} …")
        api.upload_folder(
            repo, repo_type, folder, commit_message="Release made with pandallm", ignore_patterns=[".*", "*/.*"]
        )
    except Exception as e:  # its errors differ from version to version
        raise PandaError(
            f"ModelScope refused the upload of {folder} to {repo} ({first_line(e)}): check your login there, then push again with "
            f"`panda release {folder} --push modelscope:{repo}`."
        ) from None
    return f"https://modelscope.cn/{'datasets' if repo_type == 'dataset' else 'models'}/{repo}"
