"""The rules of the house that no reader sees at one place: which room imports which, and what stays unloaded."""

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import FunctionType, ModuleType

import pytest

from tests.support.forked import succeeds, without_raigen

SOURCE = Path(__file__).parents[2] / "src" / "raigen"
# A room imports rooms before it, and nothing else. `world.train` makes the bundled models; nothing imports it.
ROOMS = ["errors", "config", "world", "runs", "stats", "sae", "diffusion", "discovery", "judging", "report",
         "amplification", "studio", "auditing", "comparison", "dossier", "cli", "world.train"]  # fmt: skip
# The functions that take a run, or several, through a stage. Each has the name of its module.
DOORS = {"diffusion": ("capture",), "sae": ("train",), "discovery": ("discover", "look"),
         "judging": ("annotate", "evaluate"), "report": ("report",), "amplification": ("amplify",),
         "studio": ("launch",), "auditing": ("audit", "sweep"),
         "comparison": ("compare",), "dossier": ("dossier", "check"), "cli": ("main",)}  # fmt: skip
MAY_OPEN_DOORS = ("auditing", "cli", "__init__", "__main__")
LONGEST_FUNCTION, LONGEST_FILE = 40, 400  # lines, those of a function below its docstring
INSIDE = 0.35  # of the arrows between modules, at least this share stays inside a room


def name_of(path: Path) -> str:
    """The dotted name of a module below `raigen`."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def room_of(module: str) -> str:
    return "world.train" if module.startswith("world.train") else module.split(".")[0]


def imports_of(path: Path) -> set[str]:
    """The modules of raigen that a module imports at any depth, but for imports that only a type checker sees."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module and node.module.split(".")[0] == "raigen":
                base = node.module.removeprefix("raigen").lstrip(".")
                names = [f"{base}.{alias.name}".lstrip(".") for alias in node.names]
                found.update(name if name in MODULES else base for name in names)
        if isinstance(node, ast.Import):
            found.update(a.name.removeprefix("raigen.") for a in node.names if a.name.startswith("raigen."))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


ARROWS = {name: imports_of(path) - {name} for name, path in MODULES.items()}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("__init__", "__main__")])
def test_a_room_imports_rooms_before_it(module):
    for imported in ARROWS[module]:
        before, after = room_of(imported), room_of(module)
        assert before == after or ROOMS.index(before) < ROOMS.index(after), f"{module} imports {imported}"


def test_no_module_imports_itself_by_a_detour():
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for imported in ARROWS.get(module, ()):
                visit(imported, (*way, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_most_of_what_belongs_together_lies_together():
    arrows = [(a, b) for a, found in ARROWS.items() if a not in ("__init__", "__main__") for b in found]
    inside = [room_of(a) == room_of(b) for a, b in arrows]
    assert sum(inside) >= INSIDE * len(inside), f"{sum(inside)} of {len(inside)} arrows stay inside a room"


@pytest.mark.parametrize(("room", "door"), [(room, door) for room, doors in DOORS.items() for door in doors])
def test_a_room_has_its_door(room, door):
    function = getattr(import_module(f"raigen.{room}.{door}"), door)
    assert callable(function) and function.__doc__
    package = import_module(f"raigen.{room}")
    # The module keeps its name: were the function in its place, `raigen.room.door` would mean two things.
    assert getattr(package, door) is sys.modules[f"raigen.{room}.{door}"]
    line = rf"from raigen\.{room}\.{door} import .*\b{door}\b"
    users = {module for module, path in MODULES.items() if re.search(line, path.read_text(encoding="utf-8"))}
    others = {module for module in users if room_of(module) not in (*MAY_OPEN_DOORS, room)}
    assert not others, f"{', '.join(others)}: only auditing and the command line open a door of another room"


def test_every_folder_is_a_room():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders | {"errors", "stats"} == set(ROOMS) - {"world.train"}


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_a_module_says_its_job_and_fits_a_sitting(path):
    text = path.read_text(encoding="utf-8")
    doc = ast.get_docstring(ast.parse(text))
    assert doc and doc.splitlines()[0].strip().endswith((".", ":", "?"))
    assert text.count("\n") <= LONGEST_FILE


@pytest.mark.parametrize("path", MODULES.values(), ids=MODULES.keys())
def test_a_function_fits_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - (body[0].lineno if body else node.lineno) + 1
            assert length <= LONGEST_FUNCTION, f"{node.name}: {length} lines below its docstring"


def test_there_is_no_room_for_odds_and_ends():
    assert not [name for name in MODULES if name.split(".")[-1] in ("utils", "util", "helpers", "common", "misc")]


def test_nothing_is_pickled():
    for name, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        if name == "sae.interchange":  # reads what others have pickled, and of it tensors only
            assert text.count("torch.load(") == text.count("weights_only=True)") == 1
            text = text.replace("torch.load(", "")
        assert "import pickle" not in text and "torch.load(" not in text and "torch.save(" not in text, path


def test_the_reader_of_imports_reads_all_kinds(tmp_path):
    source = tmp_path / "x.py"
    source.write_text(
        "import raigen.sae.model\nfrom raigen.discovery import scores\nif TYPE_CHECKING:\n"
        "    from raigen.cli.main import main\ndef f():\n    from raigen.world.judge import judge\n"
        "from raigen.world.train.unet import x\nfrom raigen.config import SAEConfig\n"
    )
    assert imports_of(source) == {"sae.model", "discovery.scores", "world.judge", "world.train.unet", "config"}


@pytest.mark.parametrize(
    "code",
    [
        "import raigen",
        "import raigen; raigen.audit; raigen.Run; raigen.SAEConfig; raigen.RaigenError; raigen.RareAttribute",
        "from raigen.cli.main import main; main(['version'])",
        "from raigen.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from raigen.cli.main import main; main(['audit', 'a doctor', '--n-images', '3'])",
    ],
)
def test_light_things_load_no_heavy_library(code):
    heavy = "{'torch', 'diffusers', 'transformers', 'numpy', 'scipy', 'sklearn', 'altair', 'pandas'} & set(sys.modules)"
    script = f"import sys\n{code}\nloaded = {heavy}\nassert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def check_public_names() -> None:
    without_raigen()
    import raigen

    for name in raigen.__all__:
        assert getattr(raigen, name) is not None, name
    assert sorted(dir(raigen)) == sorted(raigen.__all__)
    import raigen.amplification.steering
    import raigen.auditing.audit

    for function in (raigen.audit, raigen.amplify, raigen.compare, raigen.steering):
        assert isinstance(function, FunctionType)
    assert isinstance(raigen.train, ModuleType) and callable(raigen.train.fit)
    assert callable(raigen.scores.minority_scores) and callable(raigen.scores.prune)
    assert callable(raigen.world.portraits.draw)
    assert callable(raigen.interchange.to_saelens) and callable(raigen.interchange.from_file)
    assert raigen.sae.MatryoshkaSAE is raigen.MatryoshkaSAE


def test_all_public_names_are_there():
    assert succeeds(check_public_names)


def test_an_unknown_name_is_an_attribute_error():
    import raigen

    with pytest.raises(AttributeError, match=r"raigen.*audits"):
        raigen.audits  # noqa: B018
