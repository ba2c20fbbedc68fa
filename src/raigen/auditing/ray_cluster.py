"""Spreads jobs over a Ray cluster; a worker or a node that dies costs its own jobs only."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from raigen.auditing.processes import Message
from raigen.errors import RaigenError

LOCAL = "local"  # in place of an address: a cluster of this machine alone, for this process


def spread_over(function: Callable[..., Iterable[Any]], jobs: Sequence[tuple[Any, ...]], address: str
                ) -> Iterator[Message]:  # fmt: skip
    """Runs `function(*job)` for every job on the Ray cluster at `address` (`auto`, `HOST:PORT`, `ray://HOST:PORT`, or
    `local`); what they yield, as `raigen.auditing.processes.spread` tells it.

    Each job takes a GPU where the cluster has any, else a CPU, and starts in this process's working folder: the
    cluster needs the same files at the same paths, and raigen. A job that raises RaigenError, or whose worker dies,
    fails and is not tried again; the others go on. When the caller stops, the jobs are ended.
    Raises RaigenError when ray is not installed or the cluster cannot be reached.
    """
    ray = _connected(address)
    needs = {"num_gpus": 1} if ray.cluster_resources().get("GPU") else {"num_cpus": 1}
    told = ray.remote(num_returns="streaming", max_retries=0, **needs)(_told)
    waiting = {told.remote(os.getcwd(), function, job): index for index, job in enumerate(jobs)}
    try:
        while waiting:
            for news in ray.wait(list(waiting), num_returns=1, fetch_local=False)[0]:
                yield (message := _heard(ray, news, waiting[news]))
                if message.is_end:
                    del waiting[news]
    finally:
        for news in waiting:
            ray.cancel(news, force=True)
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


def _heard(ray: Any, news: Any, index: int) -> Message:
    """The next message of a job."""
    try:
        return Message(index, *ray.get(next(news)))
    except StopIteration:
        return Message(index, None, True, "its worker ended without a word")
    except ray.exceptions.RayError as error:
        return Message(index, None, True, f"its worker died: {type(error).__name__}")


def _told(folder: str, function: Callable[..., Iterable[Any]], job: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
    """What a job says, on the worker."""
    os.chdir(folder)  # paths of a study are relative
    try:
        for item in function(*job):
            yield item, False, None
        yield None, True, None
    except RaigenError as error:
        yield None, True, str(error)
