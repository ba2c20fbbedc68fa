"""What people noted about findings on the report: verdicts, better names, free text."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from raigen.config import in_a_line, json_of, shaped, visible
from raigen.config.text_files import LONGEST, LONGEST_LABEL
from raigen.errors import RaigenError
from raigen.judging.presence_table import read_given, table
from raigen.judging.review import digest
from raigen.runs.files import write_text
from raigen.runs.records import RareAttribute, Sample
from raigen.runs.run import Run

FORMAT = 1
VERDICTS = ("agree", "wrong name", "insulting", "not visible")
WANTED = "the file that the report downloads"


@dataclass(frozen=True)
class Note:
    """What one person, `by`, noted about one finding. `images` is a hash of its top images, and `label` its title at
    that time; `verdicts` are some of `VERDICTS`, and `name` is a better name, or empty."""

    neuron: int
    images: str
    label: str
    by: str
    verdicts: tuple[str, ...] = ()
    name: str = ""
    text: str = ""

    @classmethod
    def from_json(cls, entry: dict[str, Any]) -> "Note":
        """The note of one entry. Raises TypeError or ValueError for an entry of another shape."""
        texts = {name: str(entry.get(name, "")) for name in ("images", "label", "by", "name", "text")}
        if len(texts["text"]) > LONGEST or max(map(len, texts.values())) > LONGEST:
            raise ValueError(f"a text of more than {LONGEST:,} characters")
        verdicts = tuple(entry.get("verdicts", ()))
        if unknown := set(verdicts) - set(VERDICTS):
            raise ValueError(f"the verdicts {sorted(map(str, unknown))}")
        lines = {name: in_a_line(texts[name])[:LONGEST_LABEL] for name in ("label", "by", "name")}
        return cls(int(entry["neuron"]), verdicts=verdicts, **texts | lines | {"text": visible(texts["text"]).strip()})


def holds_notes(path: Path) -> bool:
    """Whether a file holds notes, rather than the ticks of a review sheet; False for what is no JSON object."""
    entry = json_of(path) if path.is_file() else None
    return isinstance(entry, dict) and "notes" in entry


def notes_of(run: Run) -> list[Note]:
    """The notes that were brought back to a run, about the findings that it still lists."""
    if not run.notes_path.is_file():
        return []
    hashes = hashes_of(run, run.attributes)
    return [note for note in read_notes(run.notes_path) if hashes.get(note.neuron) == note.images]


def take_notes(run: Run, path: Path) -> list[RareAttribute]:
    """Brings notes back to the run: adds them to notes.json, and writes the names that people gave into
    attributes.json and presence.csv. Returns the attributes that got a name.

    A later note of the same person about the same finding replaces the earlier one; without a name in it, the name
    goes, too. Of several people who give a name, the last counts. annotations.jsonl keeps the annotator's label.

    Raises RaigenError when the file cannot be read, a name comes without the name of its author, or a note is about a
    finding that this run does not list.
    """
    attributes, found = run.attributes, read_notes(path)
    hashes = hashes_of(run, attributes)
    for note in found:
        if hashes.get(note.neuron) != note.images:
            raise RaigenError(
                f"{path}: expected notes on what {run.report_path} lists; the note on {note.label!r} (neuron "
                f"{note.neuron}) is about other images. Open the report again and note it there"
            )
        if not note.by:
            raise RaigenError(f"{path}: expected a name under each note; the note on {note.label!r} has none. Write "
                              "your name into the field “Your name” of the report, and download again")  # fmt: skip
    earlier = notes_of(run)
    taken = {(note.neuron, note.by): note for note in (*earlier, *found)}
    latest = [*(note for note in earlier if taken[note.neuron, note.by] is note), *found]
    write_notes(run, latest)
    names = {note.neuron: note for note in latest if note.name}
    attributes = [named(attribute, names.get(attribute.neuron)) for attribute in attributes]
    run.write_attributes(attributes)
    if run.presence_path.is_file():
        write_text(run.presence_path, table(attributes, read_given(run)))
    return [attribute for attribute in attributes if attribute.given_name]


def named(attribute: RareAttribute, note: Note | None) -> RareAttribute:
    """The attribute with the name that a person gave, or without one."""
    return replace(attribute, given_name=note.name if note else None, named_by=note.by if note else None)


def read_notes(path: Path) -> list[Note]:
    """The notes of a file. Raises RaigenError when it cannot be read, or holds other things."""
    if not path.is_file():
        raise RaigenError(f"{path}: expected {WANTED}; there is no such file")
    with shaped(path, WANTED):
        entry = json_of(path)
        version, found = entry["format"], [Note.from_json(dict(one)) for one in entry["notes"]]
    if version != FORMAT:
        raise RaigenError(f"{path}: expected notes of format {FORMAT}; got {version!r}")
    return found


def write_notes(run: Run, notes: Sequence[Note]) -> None:
    """Writes notes.json."""
    entry = {"format": FORMAT, "notes": [asdict(note) for note in notes]}
    write_text(run.notes_path, json.dumps(entry, indent=1))


def hashes_of(run: Run, attributes: Sequence[RareAttribute]) -> dict[int, str]:
    """By neuron, a hash of its top images: the first 16 digits. It tells whether a note is about the same finding."""
    by_file: dict[str, Sample] = run.sample_of
    return {
        attribute.neuron: digest([by_file[file] for file in attribute.top_images if file in by_file])[:16]
        for attribute in attributes
    }
