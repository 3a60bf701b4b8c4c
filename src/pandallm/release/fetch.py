"""Models and deltas named as folder, as Hugging Face id, or as `modelscope:` id: in the end a folder on this machine."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pandallm.errors import BadInput
from pandallm.model.folder import first_line
from pandallm.release.manifest import MANIFEST

_HUB_ID = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
#: Copies of the weights in other formats; PyTorch's are fetched only where nothing else is there.
_OTHER_FORMATS = [
    "*.gguf",
    "*.ggml",
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.onnx",
    "onnx/*",
    "original/*",
    "*.ckpt",
    "*.pt",
    "*.pth",
]
_TORCH = ["*.bin", "*.bin.index.json"]
_MODELSCOPE = "modelscope:"


def locate(name: str, role: str) -> Path:
    """The folder that `name` stands for; from a hub it is downloaded into that hub's cache, or found there.

    name: an existing folder; `owner/name` or `owner/name@revision` on Hugging Face (HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE
    and the login of `hf auth login` count); `modelscope:owner/name` there. role: `Base`, `Target` or `Delta`, for
    messages. Raises BadInput where it is neither, gated, unknown, or cannot be reached.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    hub, plain = (
        ("ModelScope", name.removeprefix(_MODELSCOPE)) if name.startswith(_MODELSCOPE) else ("Hugging Face", name)
    )
    parts = _HUB_ID.fullmatch(plain)
    if parts is None:
        raise BadInput(f"{role} folder {name} does not exist; give a folder, or a hub id such as owner/name.")
    download = _modelscope if hub == "ModelScope" else _hugging_face

    def fetch(ignore: list[str]) -> Path:
        return download(role, parts["name"], parts["revision"], ignore)

    if role == "Delta":
        return fetch([])
    folder = fetch(_OTHER_FORMATS + _TORCH)
    if not any(folder.glob("*.safetensors")) and not (folder / MANIFEST).is_file():
        folder = fetch(_OTHER_FORMATS)
    return folder


def _hugging_face(role: str, name: str, revision: str | None, ignore: list[str]) -> Path:
    from huggingface_hub import errors, snapshot_download

    at = f"{role} {name}" + (f" (revision {revision})" if revision else "")
    try:
        return Path(snapshot_download(name, revision=revision, ignore_patterns=ignore))
    except errors.GatedRepoError:
        raise BadInput(
            f"{at} is gated: accept its licence on its page with your account, then run `hf auth login`."
        ) from None
    except errors.RevisionNotFoundError:
        raise BadInput(f"{role} {name} has no revision {revision}; look at its page for the right one.") from None
    except errors.RepositoryNotFoundError:
        raise BadInput(
            f"{at} is no folder here, and on the hub it does not exist or is private: check the name, or run `hf auth login`."
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, errors.HfHubHTTPError, OSError) as e:
        raise BadInput(
            f"{at} is no folder here and could not be downloaded ({first_line(e)}): check the connection, set HF_ENDPOINT "
            "to a mirror, or give a local folder."
        ) from None


def _modelscope(role: str, name: str, revision: str | None, ignore: list[str]) -> Path:
    try:
        from modelscope import snapshot_download  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise BadInput(f"{role} modelscope:{name} needs the package modelscope: `pip install modelscope`.") from None
    call: Callable[..., Any] = snapshot_download
    try:
        return Path(call(name, revision=revision, ignore_patterns=ignore))
    except Exception as e:  # its errors differ from version to version
        raise BadInput(
            f"{role} modelscope:{name} could not be downloaded ({first_line(e)}): check the name and the connection, or "
            "give a local folder."
        ) from None
