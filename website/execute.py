"""Executes the notebooks in docs/notebooks as they stand, and writes their outputs: python -m website.execute."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
ORDER = ("audit", "read-a-run", "steer", "compare", "vectors", "balance")  # the first one makes a run that others read
SECONDS = 3600  # for a cell
LARGEST = 300_000  # bytes of a notebook with its outputs


def executed(name: str, place: str) -> Any:
    """A notebook with the outputs of its cells, executed in the folder `place`."""
    found = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = NotebookClient(found, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": place}})
    client.execute()
    for cell in found.cells:
        cell.metadata.pop("execution", None)  # times
        if "outputs" in cell:  # warnings and bars are of the machine, not of the notebook
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr" and not _is_widget(one)]
    found.metadata.pop("widgets", None)
    return found


def _is_widget(output: Any) -> bool:
    return any("widget" in kind for kind in output.get("data", {}))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        for each in sys.argv[1:] or ORDER:
            nbformat.write(executed(each, folder), FOLDER / f"{each}.ipynb")
            print(f"{each}: {(FOLDER / f'{each}.ipynb').stat().st_size:,} bytes", flush=True)
