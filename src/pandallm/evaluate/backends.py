"""Opens what answers the questions of an evaluation, from plain arguments."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from pandallm.errors import BadInput
from pandallm.evaluate.backend import Backend
from pandallm.model.spec import Dtype
from pandallm.progress import SILENT, Progress

BackendKind = Literal["local", "vllm", "server"]
BACKENDS: tuple[BackendKind, ...] = ("local", "vllm", "server")


def open_backend(
    kind: str,
    model: str,
    *,
    url: str | None = None,
    devices: Sequence[str] = ("auto",),
    dtype: Dtype = "float32",
    batch_tokens: int = 8192,
    chat: bool = False,
    threads: int | None = None,
    concurrency: int = 8,
    progress: Progress = SILENT,
) -> Backend:
    """The backend of `kind`: "local", "vllm" or "server".

    `model` is a model folder (local, vllm) or the model's name on the server at `url`. `devices` with more than one
    entry starts one process per device (local) or spreads the model's layers over that many GPUs (vllm); a server has
    its own. `chat` sends messages to a server, which applies its own template; elsewhere the template is part of the
    text. `progress` is told when a server has to be asked again. Backends with processes or connections have `close()`.

    Raises BadInput for settings that do not belong together, a missing extra, or a model that cannot be opened.
    """
    if not devices:
        raise BadInput("--device is empty: name devices such as cuda:0,cuda:1, or leave it out.")
    if kind == "server":
        if not url:
            raise BadInput("--backend server needs the server's address, such as --server http://localhost:8000/v1.")
        from pandallm.evaluate.server import ServerBackend

        return ServerBackend(url, model, chat=chat, concurrency=concurrency, progress=progress)
    if url:
        raise BadInput(
            f"--server is given, but the backend is {kind!r}; use --backend server, or leave the address out."
        )
    if kind == "vllm":
        from pandallm.evaluate.vllm import VllmBackend

        return VllmBackend(Path(model), dtype=dtype, devices=devices)
    if kind == "local":
        if len(devices) == 1:
            return local_backend(model, devices[0], dtype=dtype, batch_tokens=batch_tokens)
        from pandallm.evaluate.parallel import ParallelBackend

        factory = partial(local_backend, model, dtype=dtype, batch_tokens=batch_tokens)
        return ParallelBackend(factory, devices, threads=threads, chunk_size=2 * batch_tokens)
    raise BadInput(f"--backend {kind!r} is unknown; use {', '.join(BACKENDS)}.")


def local_backend(model: str, device: str, *, dtype: Dtype, batch_tokens: int) -> Backend:
    """The model folder `model` on one device, in this process."""
    from pandallm.evaluate.local import LocalBackend

    return LocalBackend(Path(model), dtype=dtype, device=device, batch_tokens=batch_tokens)


def close(backend: Backend) -> None:
    """End the backend's processes or connections, if it has any."""
    ending: Callable[[], None] | None = getattr(backend, "close", None)
    if ending is not None:
        ending()
