"""Shard tasks on a Ray cluster (optional: pandallm[ray]). Tasks and results are those of the local engine.

The tasks read and write files: every node must see the recipe's files and the store under the same paths (a shared
folder), and must have the same pandallm installed. No `runtime_env` is set: one that overwrites PYTHONPATH hangs.
"""

import importlib
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from pandallm.data.engine import call_with_state
from pandallm.errors import BadInput, PandaError

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


class RayEngine:
    """Tasks through `ray.remote`, as many at once as the cluster has CPUs.

    address: of a running cluster (`auto`, `host:port`, `ray://host:port`); None starts Ray on this machine, which takes
    15 to 20 seconds. A cluster that was connected to before is used and left running. Raises BadInput where Ray is not
    installed and, with the first task, where it does not answer.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError:
            raise BadInput("Ray is not installed; pip install 'pandallm[ray]'.") from None
        self._address = address
        self._ours = False
        self._call: Any = None

    def _connect(self) -> None:
        """With the first task, not before: small corpora never come here."""
        if self._call is not None:
            return
        if not self._ray.is_initialized():
            self._check_address()
            try:
                self._ray.init(
                    # "local": never a cluster that happens to be named in the environment
                    address=self._address or "local",
                    log_to_driver=False,
                    logging_level="error",
                    include_dashboard=None if self._address else False,
                )
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as e:
                reason = str(e).splitlines()[0]
                raise BadInput(f"runtime.ray_address: no Ray at {self._address!r} ({reason}).") from None
            self._ours = True
        self._call = self._ray.remote(num_cpus=1)(call_with_state)

    def _check_address(self) -> None:
        """Whether someone listens there: Ray itself would try for minutes."""
        host, colon, port = (self._address or "").removeprefix("ray://").rpartition(":")
        if not colon:
            return
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except (OSError, ValueError, OverflowError) as e:
            raise BadInput(
                f"runtime.ray_address: no Ray at {self._address} ({e}); start one with `ray start`."
            ) from None

    @property
    def workers(self) -> int:
        """The CPUs of the cluster."""
        self._connect()
        return max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, and stop it where it was started here."""
        if self._ours and self._ray.is_initialized():
            self._ray.shutdown()
        self._ours, self._call = False, None

    def map(
        self,
        function: Callable[[S, T], R],
        items: Iterable[T],
        make_state: Callable[[], S],
        *,
        ahead: int | None = None,
    ) -> Iterator[R]:
        """See `Engine.map`."""
        self._connect()
        most = ahead or 4 * self.workers
        make = self._ray.put(pickle.dumps(make_state))
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(self._call.remote(function, make, item))
                if len(waiting) >= most:
                    yield self._result(waiting.popleft())
            while waiting:
                yield self._result(waiting.popleft())
        finally:
            for reference in waiting:
                self._ray.cancel(reference)

    def _result(self, reference: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as e:
            raise e.cause from None  # as if the task had run here
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError) as e:
            raise PandaError(f"A Ray worker died ({type(e).__name__}, often for lack of memory); run again.") from None
