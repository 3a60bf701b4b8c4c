"""Several processes, one device each, as one backend: passages are dealt to whoever is free."""

import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_context
from typing import Any

from pandallm.errors import BadInput, Interrupted, PandaError
from pandallm.evaluate.backend import Answered, Asked, Backend, Scored

#: Portions per worker at least, so that all end at about the same time.
PORTIONS_PER_WORKER = 4
#: Seconds that a worker is given to end by itself.
PATIENCE = 5.0
_KINDS: dict[str, type[PandaError]] = {"BadInput": BadInput, "Interrupted": Interrupted, "PandaError": PandaError}


class ParallelBackend:
    """Backend of several worker processes. `factory(device)`, which must be picklable, opens each worker's own backend.

    Whole passages are dealt in portions of about `chunk_size` characters or less, costly ones first, to whichever worker
    is free; results come back as they are found. On "cpu" each worker computes with `threads` threads, by default the
    machine's cores divided among the workers. Workers end with `close`, with this process, and on Ctrl-C.

    Raises what a worker's factory raises, and PandaError where a worker dies.
    """

    def __init__(
        self,
        factory: Callable[[str], Backend],
        devices: Sequence[str],
        *,
        threads: int | None = None,
        chunk_size: int = 16384,
    ) -> None:
        self.factory, self.devices, self.chunk_size = factory, list(devices), chunk_size
        self.threads = threads or max(1, (os.cpu_count() or 1) // len(self.devices))
        self._workers: list[_Worker] = []
        self._identity: Mapping[str, Any] = {}
        self._start()

    @property
    def identity(self) -> Mapping[str, Any]:
        """That of the first worker: scores do not depend on how many there are."""
        return self._identity

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            with suppress(OSError):
                worker.connection.send(None)
        for worker in self._workers:
            if worker.busy:
                worker.process.terminate()
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join(PATIENCE)
            worker.connection.close()
        self._workers = []

    def score(
        self, asked: Sequence[Asked], groups: Sequence[str], done: Callable[[int], bool] = lambda i: False
    ) -> Iterator[list[tuple[int, Scored]]]:
        """See `Backend.score`."""
        portions = deal(asked, groups, self.chunk_size, len(self.devices) * PORTIONS_PER_WORKER)
        jobs = [_Job("score", p, [asked[i] for i in p], [groups[i] for i in p], [done(i) for i in p]) for p in portions]
        yield from self._run(jobs, lambda i, text: False)

    def generate(
        self,
        asked: Sequence[Asked],
        max_new_tokens: int,
        settled: Callable[[int, str], bool] = lambda i, text: False,
        done: Callable[[int], bool] = lambda i: False,
    ) -> Iterator[list[tuple[int, Answered]]]:
        """See `Backend.generate`; `settled` is asked in this process."""
        alone = [str(i) for i in range(len(asked))]
        portions = deal(asked, alone, self.chunk_size, len(self.devices) * PORTIONS_PER_WORKER)
        jobs = [_Job("generate", p, [asked[i] for i in p], max_new_tokens, [done(i) for i in p]) for p in portions]
        yield from self._run(jobs, settled)

    def _start(self) -> None:
        context = get_context("spawn")  # a fork of a process that has run torch or tokenizer threads may hang
        try:
            for device in self.devices:
                ours, theirs = context.Pipe()
                threads = self.threads if device == "cpu" else None
                process = context.Process(target=_work, args=(theirs, self.factory, device, threads), daemon=True)
                self._workers.append(_Worker(process, ours, device))
                process.start()
                theirs.close()
            for worker in self._workers:
                message = worker.receive()
                if message is None:
                    raise PandaError(f"The worker on {worker.device} died while it opened the model{worker.reason()}.")
                _raise_if_failed(message)
            # Asked for last: identities are digests of large files.
            self._workers[0].connection.send("identity")
            message = self._workers[0].receive()
            if message is None:
                raise PandaError(
                    f"The worker on {self.devices[0]} died while it read the model{self._workers[0].reason()}."
                )
            _raise_if_failed(message)
            self._identity = message[1]
        except BaseException:
            for worker in self._workers:
                worker.busy = worker.process.pid is not None
            self._workers = [w for w in self._workers if w.busy]
            self.close()
            raise

    def _run(self, jobs: Sequence["_Job"], settled: Callable[[int, str], bool]) -> Iterator[list[tuple[int, Any]]]:
        """Results of all jobs, as they come. A worker's death is told once the others' portions are over."""
        if not self._workers:
            self._start()
        waiting = deque(job for job in jobs if not all(job.done))
        total, finished = sum(len(j.indices) for j in jobs), sum(sum(j.done) for j in jobs)
        dead: _Worker | None = None
        try:
            while True:
                for worker in self._workers:
                    if waiting and dead is None and not worker.busy:
                        worker.take(waiting.popleft())
                busy = [w for w in self._workers if w.busy]
                if not busy:
                    break
                ready = connection.wait([w.connection for w in busy])
                for worker in (w for w in busy if w.connection in ready):
                    message = worker.receive()
                    if message is None:
                        dead, worker.busy = worker, False
                        continue
                    _raise_if_failed(message)
                    kind, content = message
                    if kind == "settled":
                        i, text = content
                        with suppress(OSError):  # its death shows at the next message
                            worker.connection.send(settled(worker.indices[i], text))
                    elif kind == "over":
                        worker.busy = False
                    else:
                        batch = [(worker.indices[i], result) for i, result in content]
                        finished += sum(i in worker.open for i, _ in batch)
                        yield batch
        finally:
            if dead is not None or any(w.busy for w in self._workers):
                self.close()
        if dead is not None:
            raise PandaError(
                f"The worker on {dead.device} died{dead.reason()}; {finished} of {total} questions are done and kept: "
                "run again to go on, with fewer devices or smaller batches if memory is short."
            )


def deal(asked: Sequence[Asked], groups: Sequence[str], chunk_size: int, portions: int) -> list[list[int]]:
    """Indices in portions of whole groups, costly groups first.

    A portion costs at most `chunk_size` characters, and at most the whole divided by `portions`, or is one group. A
    group's passage is counted once. The portions do not depend on what is already done.
    """
    runs: list[list[int]] = []
    for i, group in enumerate(groups):
        if i and group == groups[i - 1]:
            runs[-1].append(i)
        else:
            runs.append([i])

    def cost(run: Sequence[int]) -> int:
        passage = max(asked[i].passage[1] - asked[i].passage[0] for i in run)
        own = sum(
            len(a.context) - (a.passage[1] - a.passage[0]) + sum(map(len, a.continuations))
            for a in (asked[i] for i in run)
        )
        return passage + own

    costs = {run[0]: cost(run) for run in runs}
    limit = min(chunk_size, sum(costs.values()) / max(1, portions))
    out: list[list[int]] = []
    room = 0.0
    for run in sorted(runs, key=lambda run: (-costs[run[0]], run[0])):
        if not out or costs[run[0]] > room:
            out.append([])
            room = limit
        out[-1] += run
        room -= costs[run[0]]
    return out


@dataclass(frozen=True)
class _Job:
    kind: str
    indices: list[int]
    asked: list[Asked]
    argument: Any  # groups, or the number of new tokens
    done: list[bool]


class _Worker:
    """This process's end of a worker."""

    def __init__(self, process: Any, conn: "connection.Connection[Any, Any]", device: str) -> None:
        self.process, self.connection, self.device = process, conn, device
        self.busy = False
        self.indices: list[int] = []
        self.open: set[int] = set()

    def take(self, job: _Job) -> None:
        self.indices, self.busy = job.indices, True
        self.open = {i for i, over in zip(job.indices, job.done) if not over}
        with suppress(OSError):  # its death shows at the next message
            self.connection.send((job.kind, job.asked, job.argument, job.done))

    def receive(self) -> Any:
        """The next message; None where the worker is dead."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def reason(self) -> str:
        self.process.join(PATIENCE)
        code = self.process.exitcode
        if code is not None and code < 0:
            with suppress(ValueError):
                name = signal.Signals(-code).name
                return f" ({name}{', often for lack of memory' if name == 'SIGKILL' else ''})"
        return "" if code is None else f" (exit code {code})"


def _raise_if_failed(message: tuple[str, Any]) -> None:
    if message[0] == "failed":
        kind, text = message[1]
        raise _KINDS.get(kind, RuntimeError)(text)


def _work(
    conn: "connection.Connection[Any, Any]", factory: Callable[[str], Backend], device: str, threads: int | None
) -> None:
    """A worker process: jobs in, batches out, until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends its workers
    try:
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)
        backend = factory(device)
        if threads is not None and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
        conn.send(("ready", None))
        while (job := conn.recv()) is not None:
            if job == "identity":
                conn.send(("identity", dict(backend.identity)))
                continue
            kind, asked, argument, done = job

            def settled(i: int, text: str) -> bool:
                conn.send(("settled", (i, text)))
                return bool(conn.recv())

            batches: Iterator[list[tuple[int, Any]]] = (
                backend.score(asked, argument, done.__getitem__)
                if kind == "score"
                else backend.generate(asked, argument, settled, done.__getitem__)
            )
            for batch in batches:
                conn.send(("batch", batch))
            conn.send(("over", None))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the first process is gone
    except BaseException as e:
        told = (type(e).__name__, str(e)) if isinstance(e, PandaError) else ("", "".join(traceback.format_exception(e)))
        with suppress(OSError):
            conn.send(("failed", told))
