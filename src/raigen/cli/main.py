"""The command line: runs the command that the arguments spell out."""

import re
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from tyro.conf import Positional

from raigen.cli.audit import Audit, Hookpoints, Plan
from raigen.cli.dossier import Check, Dossier
from raigen.cli.flags import Command, parse
from raigen.cli.image import Image
from raigen.cli.progress import quiet_libraries
from raigen.cli.results import Amplify, Compare, Review, Share, Studio, View
from raigen.cli.stages import Annotate, Capture, Discover, Evaluate, Look, Report, Train
from raigen.cli.terminal import say, warn
from raigen.errors import RaigenError


@dataclass(frozen=True, kw_only=True)
class Version(Command):
    """Prints the version."""

    def execute(self) -> None:
        say(f"raigen {version('raigen')}")


@dataclass(frozen=True, kw_only=True)
class Completion(Command):
    """Prints a script with which a shell completes commands and flags."""

    shell: Positional[Literal["bash", "zsh", "tcsh"]]
    """The shell. For bash, write into ~/.bashrc: eval "$(raigen completion bash)"."""

    def execute(self) -> None:
        with suppress(SystemExit):  # with which printing ends
            parse(["--tyro-print-completion", self.shell], COMMANDS)


LONG_WORD, LONG_WORD_CUT = r"(\S{200})\S{200,}", r"\1..."  # a name or a file in place of a text

COMMANDS = (Audit, Plan, Capture, Train, Discover, Look, Annotate, Evaluate, Report, Amplify, Studio, Hookpoints,
            Compare, Review, Dossier, Check, Share, View, Image, Completion, Version)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` spells out and returns the exit status.

    0: done. 2: an error that the user can fix. 130: stopped by Ctrl-C. 1 and 3: what `raigen check` decided.
    """
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if argv is None:  # the command itself, not a test or a notebook
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like Ctrl-C, with a word
    try:
        command = parse(args, COMMANDS)
        quiet_libraries()
        return command.execute() or 0
    except RaigenError as error:
        warn(f"raigen: {re.sub(LONG_WORD, LONG_WORD_CUT, str(error))}")
        return 2
    except OSError as error:  # of a file that nothing of ours reads or writes by itself: a name too long, say
        place = f"{error.filename!r:.200}: " if error.filename else ""
        warn(f"raigen: {place}expected a file or folder that can be used; {error.strerror or error}")
        return 2
    except KeyboardInterrupt:
        ahead = "starts over" if args[0] == "hookpoints" else "goes on from here"  # a search keeps nothing
        warn(f"\nraigen: stopped; the same command {ahead}")
        return 130


if __name__ == "__main__":
    sys.exit(main())
