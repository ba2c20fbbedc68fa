"""Runs a function in a fork of this process: apart from it, but without loading torch and diffusers anew."""

import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.process import BaseProcess


def forked(function: Callable[..., object], *args: object) -> BaseProcess:
    """The fork, which has started. It ends with status 0, or with 1 and a traceback on stderr."""
    process = multiprocessing.get_context("fork").Process(target=_told, args=(function, *args))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns where this process has threads
        process.start()
    return process


def succeeds(function: Callable[..., object], *args: object) -> bool:
    """Whether the function ends without an error in a fork."""
    process = forked(function, *args)
    process.join()
    return process.exitcode == 0


def without_raigen() -> None:
    """Forgets every module of raigen, as if none had been imported yet."""
    for name in [name for name in sys.modules if name.split(".")[0] == "raigen"]:
        del sys.modules[name]


def _told(function: Callable[..., object], *args: object) -> None:
    try:
        function(*args)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # at once: what the parent registered to run at its exit is the parent's
