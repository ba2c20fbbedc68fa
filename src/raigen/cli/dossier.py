"""The commands for auditors and for continuous integration: dossier, check."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from raigen.cli.flags import Command
from raigen.cli.progress import progress_bars, told
from raigen.cli.terminal import say


@dataclass(frozen=True, kw_only=True)
class Dossier(Command):
    """Writes what an auditor hands in: an audit to print, and the rates, images and verdicts for other programs."""

    place: Positional[Path]
    """A run folder that was evaluated, or a study that was compared."""
    tolerance: Path | None = None
    """A tolerance file (TOML): who tolerates which rates, and which attributes touch protected grounds."""
    images: bool = True
    """Write images.parquet, too, with all images; it needs pyarrow."""

    def execute(self) -> None:
        from raigen.dossier.dossier import dossier
        from raigen.dossier.evidence import opened
        from raigen.dossier.tolerances import Tolerances, read_tolerances

        tolerances = read_tolerances(self.tolerance) if self.tolerance else Tolerances()
        place = opened(self.place)
        with place.locked(), progress_bars() as show, told("dossier", show) as tell:
            paths = dossier(place, tolerances, self.images, tell)
        for path in paths:
            say(str(path))


@dataclass(frozen=True, kw_only=True)
class Check(Command):
    """Decides whether a run or a study keeps the tolerances of a file; the exit status says so: 0 met, 1 violated, 3
    undecided."""

    place: Positional[Path]
    """A run folder that was evaluated, or a study that was compared."""
    tolerance: Path
    """A tolerance file (TOML) with the rules."""

    def execute(self) -> int:
        from raigen.dossier.check import check, exit_status
        from raigen.dossier.evidence import opened
        from raigen.dossier.tolerances import read_tolerances

        place = opened(self.place)
        tolerances = read_tolerances(self.tolerance)
        with place.locked():
            decisions = check(place, tolerances)
        for decision in decisions:
            say(f"{decision.state}: {decision.rule.text}")
        for path in (place.dossier_dir / "check.xml", place.dossier_dir / "check.md"):
            say(str(path))
        return exit_status(decisions)
