"""Runs jobs on a Ray cluster; a worker or a node that dies costs its own jobs only."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from raigen.auditing.processes import Message, messages_of
from raigen.errors import RaigenError

LOCAL = "local"  # in place of an address: a cluster of this machine alone, for this process


def spread_over(function: Callable[[Any], Iterable[Any]], jobs: Sequence[Any], address: str) -> Iterator[Message]:
    """Runs `function(job)` for every job on the Ray cluster at `address` (`auto`, `HOST:PORT`, `ray://HOST:PORT`, or
    `local`), and yields messages as `raigen.auditing.processes.spread` does.

    Each job takes one GPU where the cluster has any, else one CPU, and starts in the working folder of this process:
    the cluster needs the same files at the same paths, and raigen. A job that raises RaigenError, or whose worker dies,
    fails and is not tried again; the others go on. When the caller stops, the jobs are ended.
    Raises RaigenError when ray is not installed or the cluster cannot be reached.
    """
    ray = _connected(address)
    needs = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    remote = ray.remote(num_returns="streaming", max_retries=0, **needs)(_messages_on_worker)
    running = {remote.remote(os.getcwd(), function, job): job for job in jobs}
    try:
        while running:
            for stream in ray.wait(list(running), num_returns=1, fetch_local=False)[0]:
                yield (message := _received(ray, stream, running[stream]))
                if message.is_end:
                    del running[stream]
    finally:
        for stream in running:
            ray.cancel(stream, force=True)
        ray.shutdown()


def _connected(address: str) -> Any:
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise RaigenError("ray: expected the package ray; it is not installed. "
                          "Install it with: pip install 'raigen[ray]'") from error  # fmt: skip
    try:
        ray.init(address, log_to_driver=False, ignore_reinit_error=True, logging_level="ERROR")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RaigenError(f"ray: expected the address of a running cluster, such as auto or HOST:6379, or {LOCAL}; "
                          f"{address!r} cannot be reached ({error})") from error  # fmt: skip
    return ray


def _received(ray: Any, stream: Any, job: Any) -> Message:
    """The next message of a job."""
    try:
        return ray.get(next(stream))
    except StopIteration:
        return Message(job, is_end=True, error="its worker ended without a message")
    except ray.exceptions.RayError as error:
        return Message(job, is_end=True, error=f"its worker died: {type(error).__name__}")


def _messages_on_worker(folder: str, function: Callable[[Any], Iterable[Any]], job: Any) -> Iterator[Message]:
    os.chdir(folder)  # paths of a study are relative
    yield from messages_of(function, job)
