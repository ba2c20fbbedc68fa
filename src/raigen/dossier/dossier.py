"""Makes the dossier of a run or a study: the files that an auditor hands in."""

import shutil
from pathlib import Path

from raigen.dossier.audit import write_audit
from raigen.dossier.croissant import write_croissant
from raigen.dossier.decide import decide
from raigen.dossier.evaluation import write_evaluations
from raigen.dossier.evidence import moved_of, parts_of
from raigen.dossier.images import need_pyarrow, write_images
from raigen.dossier.tolerances import Tolerances
from raigen.runs.run import Run
from raigen.runs.steps import Tell, Tick
from raigen.runs.study import Study

N_FILES = 4  # that progress counts


def dossier(
    place: Run | Study, tolerances: Tolerances | None = None, images: bool = True, tell: Tell | None = None
) -> list[Path]:
    """Writes the folder `dossier` of a run or a study, and returns the paths of its files.

    audit.json and audit.md; evaluation.json (for each model) with the verdicts; images.parquet unless `images` is
    False; and croissant.json, which describes the last two. Raises RaigenError if the run was not evaluated or the
    study not compared, if pyarrow is missing, and if an image is missing or damaged.
    """
    if images:
        need_pyarrow()
    tell, tolerances, folder = tell or _nothing, tolerances or Tolerances(), place.dossier_dir
    parts, moved = parts_of(place), moved_of(place)
    tell(Tick(0, N_FILES, "audit"))
    paths = write_audit(folder, parts, moved, tolerances, decide(tolerances.rules, parts, moved))
    tell(Tick(1, N_FILES, "evaluation"))
    if (folder / "data").is_dir() and not (folder / "data").is_symlink():
        shutil.rmtree(folder / "data")  # the names of its files follow from what they hold
    paths += write_evaluations(parts, folder, tolerances)
    tell(Tick(2, N_FILES, "images"))
    table = write_images(folder / "images.parquet", parts) if images else None
    verdicts = [path for path in paths if path.suffix == ".jsonl"]
    tell(Tick(3, N_FILES, "croissant"))
    paths += [*([table] if table else []), write_croissant(folder / "croissant.json", parts, table, verdicts)]
    tell(Tick(N_FILES, N_FILES, "done"))
    return paths


def _nothing(tick: Tick) -> None:
    """Tells nobody."""
