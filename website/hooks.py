"""Makes the site from the repository: start page, formulas, API, gallery, notebooks, links out of docs/."""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?! )([^$\n]+(?:\n[^$\n]+)?)(?<! )\$(?!\d)")
BRACKETS = re.compile(r"\](\s?)\[")
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
START = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
ROOMS = ("diffusion", "sae", "discovery", "judging", "report", "amplification", "studio", "comparison", "auditing",
         "dossier", "runs", "config", "world")  # fmt: skip
SOURCES: dict[str, str] = {}  # of pages that lie elsewhere in the repository, by their address in the site


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are not in docs/."""
    linked = _linked(files)
    for name, place in START.items():
        _add(files, config, place, (ROOT / name).read_text(encoding="utf-8"), name)
    for file in linked:
        place = f"repository/{file}" if "." in posixpath.basename(file) else f"repository/{file}.txt"
        if place.endswith(".md"):
            _add(files, config, place, (ROOT / file).read_text(encoding="utf-8"), file)
        else:
            files.append(File.generated(config, place, abs_src_path=str(ROOT / file)))
    for room in ROOMS:
        _add(files, config, f"api/{room}.md", _api(room))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        _add(files, config, f"notebooks/{path.stem}.md", notebook(json.loads(path.read_text(encoding="utf-8"))))
    reports = sorted([*ROOT.glob("runs/*/report.html"), *ROOT.glob("studies/*/report.html")])
    for report in reports:
        files.append(File.generated(config, f"reports/{report.parent.name}.html", abs_src_path=str(report)))
    _add(files, config, "gallery.md", _gallery([report.parent.name for report in reports]))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Rewrites links to files outside docs/, and formulas as MathML, which needs no script."""
    place = page.file.src_uri
    source = SOURCES.get(place, f"docs/{place}")
    if place.startswith(("api/", "notebooks/")) or place == "gallery.md":
        return markdown
    parts = CODE.split(markdown)
    return "".join(part if number % 2 else _prose(part, place, source) for number, part in enumerate(parts))


def notebook(content: dict[str, Any]) -> str:
    """The cells of a notebook as Markdown: texts, code, and its outputs: text, tables, images."""
    parts = []
    for cell in content["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        parts += map(_output, cell.get("outputs", ()))
    return "\n\n".join(part for part in parts if part)


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")} if output.get("name") == "stdout" else {})
    if "image/png" in data:
        return f'<img alt="output" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return f'<div class="output">{"".join(data["text/html"])}</div>'
    text = "".join(data.get("text/plain", ""))
    return f"```text\n{text.rstrip()}\n```" if text.strip() else ""


def _prose(text: str, place: str, source: str) -> str:
    text = BRACKETS.sub(r"]\1\[", text)  # two pairs in a row are no reference
    text = LINK.sub(lambda found: found[1] + _target(found[2], place, source) + found[3], text)
    return MATH.sub(
        lambda found: latex2mathml.converter.convert(found[1] or found[2], display="block" if found[1] else "inline"),
        text,
    )


def _target(link: str, place: str, source: str) -> str:
    """Where a link of a file of the repository leads in the site."""
    name, mark, anchor = link.partition("#")
    if not name or re.match(r"[a-z]+:", link):
        return link
    file = posixpath.normpath(posixpath.join(posixpath.dirname(source), name))
    if file in START:
        there = START[file]
    elif file.startswith("docs/"):
        there = file.removeprefix("docs/")
    else:
        there = f"repository/{file}" if "." in posixpath.basename(file) else f"repository/{file}.txt"
    return posixpath.relpath(there, posixpath.dirname(place) or ".") + mark + anchor


def _linked(files: Files) -> list[str]:
    """The files outside docs/ to which pages link, directly or through such files."""
    waiting = [f"docs/{file.src_uri}" for file in files if file.src_uri.endswith(".md")] + list(START)
    seen, found = set(waiting), []
    while waiting:
        source = waiting.pop()
        if not source.endswith(".md"):
            continue
        for _, link, _ in LINK.findall(CODE.sub("", (ROOT / source).read_text(encoding="utf-8"))):
            name = link.partition("#")[0]
            file = posixpath.normpath(posixpath.join(posixpath.dirname(source), name)) if name else source
            if file in seen or re.match(r"[a-z]+:", link) or file.startswith("docs/") or not (ROOT / file).is_file():
                continue
            seen.add(file)
            waiting.append(file)
            found.append(file)
    return sorted(found)


def _add(files: Files, config: Any, place: str, text: str, source: str | None = None) -> None:
    if source:
        SOURCES[place] = source
    if known := files.get_file_from_path(place):
        files.remove(known)
    files.append(File.generated(config, place, content=text))


def _api(room: str) -> str:
    """A page of a room: what its modules say of themselves."""
    package = ROOT / "src" / "raigen" / room
    modules = sorted(path.relative_to(ROOT / "src").with_suffix("") for path in package.rglob("*.py")
                     if path.name != "__init__.py" and "train" not in path.relative_to(package).parts[:-1])  # fmt: skip
    parts = [f"# {room}", f"::: raigen.{room}\n    options:\n      members: false\n      show_root_heading: false"]
    return "\n\n".join([*parts, *(f"::: {'.'.join(module.parts)}" for module in modules)])


def _gallery(reports: list[str]) -> str:
    shown = [f"- [{name}](reports/{name}.html)" for name in reports] or [
        "None lies here: run `make demo`, then `make docs`, and they are part of the site."
    ]
    return "\n".join([
        "# Gallery", "", "## Reports of this folder", "", *shown, "", "## A report", "",
        "![The top of a report](images/report.png)", "", "## A comparison of two models", "",
        "![The matrix of a study](study.png)", "", "## The studio", "", "![The studio](images/studio.png)", "",
    ])  # fmt: skip
