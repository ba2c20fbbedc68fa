"""Spreads jobs over processes of this machine; a process that dies costs its own job only."""

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from raigen.errors import RaigenError


class Message(NamedTuple):
    """News of job `index`: an item that it yielded, or its end with the `error` that stopped it, or None."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nothing here needs
    item: Any = None
    is_end: bool = False
    error: str | None = None


class _Worker(NamedTuple):
    index: int  # type: ignore[assignment]
    process: Any


def spread(function: Callable[..., Iterable[Any]], jobs: Sequence[tuple[Any, ...]], workers: int) -> Iterator[Message]:
    """Runs `function(*job)` for every job, `workers` of them at a time, each in a new process; what they yield.

    A job ends in a message with `is_end`. One that raises RaigenError, or whose process dies, fails; the others go on.
    `function`, the jobs and the items must be picklable. When the caller stops, the processes are ended.
    """
    context, waiting = multiprocessing.get_context("spawn"), deque(enumerate(jobs))
    running: dict[Connection, _Worker] = {}
    threads = max(1, (os.cpu_count() or 1) // workers)
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                index, job = waiting.popleft()
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, threads, function, job), daemon=True)
                process.start()
                sender.close()  # ours: the pipe ends when the process does
                running[receiver] = _Worker(index, process)
            for receiver in wait(list(running)):
                assert isinstance(receiver, Connection)
                yield (message := _heard(receiver, running[receiver]))
                if message.is_end:
                    running.pop(receiver).process.join()
                    receiver.close()
    finally:
        for worker in running.values():
            worker.process.terminate()
            worker.process.join()


def _heard(receiver: Connection, worker: _Worker) -> Message:
    try:
        return Message(worker.index, *receiver.recv())
    except EOFError:
        worker.process.join()
        code = worker.process.exitcode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return Message(worker.index, None, True, f"its process {how}")


def _work(sender: Connection, threads: int, function: Callable[..., Iterable[Any]], job: tuple[Any, ...]) -> None:
    os.environ["OMP_NUM_THREADS"] = str(threads)  # read when torch is loaded, which the job does
    try:
        for item in function(*job):
            sender.send((item, False, None))
        sender.send((None, True, None))
    except RaigenError as error:
        sender.send((None, True, str(error)))
    except KeyboardInterrupt:  # Ctrl-C reaches every process; the first one says so
        return
