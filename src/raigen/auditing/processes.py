"""Runs jobs in processes of this machine; a process that dies costs its own job only."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from raigen.errors import RaigenError


class Message(NamedTuple):
    """News of a job: an item that it yielded, or its end, with the `error` that stopped it or None."""

    job: Any
    item: Any = None
    is_end: bool = False
    error: str | None = None


class _Worker(NamedTuple):
    job: Any
    process: Any
    place: int  # of the worker among those that run at once


def messages_of(function: Callable[[Any], Iterable[Any]], job: Any) -> Iterator[Message]:
    """Runs `function(job)` here: a message for every item, then one for the end. RaigenError ends the job only."""
    error = None
    try:
        for item in function(job):
            yield Message(job, item)
    except RaigenError as caught:
        error = str(caught)
    yield Message(job, is_end=True, error=error)


def spread(
    function: Callable[[Any], Iterable[Any]], jobs: Sequence[Any], workers: int, gpus: Sequence[str] = ()
) -> Iterator[Message]:
    """Runs `function(job)` for every job, up to `workers` jobs at a time, each in a new process. Of n `gpus`, worker i
    sees GPU i mod n alone.

    Yields the messages of all jobs as they arrive. A job that raises RaigenError, or whose process dies, fails; the
    others go on. `function`, the jobs and the items must be picklable. When the caller stops, the processes are ended.
    """
    context, waiting = multiprocessing.get_context("spawn"), deque(jobs)
    running: dict[Connection, _Worker] = {}
    threads = max(1, (os.cpu_count() or 1) // workers)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                job = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                place = min(set(range(workers)) - {worker.place for worker in running.values()})
                gpu = gpus[place % len(gpus)] if gpus else None
                process = context.Process(target=_work, args=(sender, threads, gpu, function, job), daemon=True)
                process.start()
                sender.close()  # ours: the pipe ends when the process does
                running[receiver] = _Worker(job, process, place)
            for receiver in wait(list(running)):
                assert isinstance(receiver, Connection)
                yield (message := _received(receiver, running[receiver]))
                if message.is_end:
                    running.pop(receiver).process.join()
                    receiver.close()
    finally:
        for worker in running.values():
            worker.process.terminate()
            worker.process.join()


def _received(receiver: Connection, worker: _Worker) -> Message:
    try:
        return receiver.recv()
    except EOFError:
        worker.process.join()
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return Message(worker.job, is_end=True, error=f"its process {how}")


def _work(
    sender: Connection, threads: int, gpu: str | None, function: Callable[[Any], Iterable[Any]], job: Any
) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is loaded, which the job does
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # read when a GPU is first used
    try:
        for message in messages_of(function, job):
            sender.send(message)
    except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C reaches every process, and the parent may be gone
        return
