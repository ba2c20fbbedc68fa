"""The rules of the house that a reader cannot see at one place: who imports whom, and what stays unloaded."""

import ast
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "raigen"
STAGES = ("capture", "train", "discover", "annotate", "evaluate", "report", "amplify", "compare")
LEVELS = {
    "errors": -1, "address": -0.5,
    "config": 0, "prompts": 0, "records": 0, "questions": 0,
    "presets": 0.25,  # options of the configurations
    "files": 0.25, "run": 0.5,  # below the rest of level 1, which writes its files through them
    "axes": 0.75, "comparisons": 0.25, "study": 0.75, "workers": 0, "cluster": 0.1, "synonyms": 1,
    "wording": 0, "markup": 0.5,  # below the pages that are made of them
    "models": 0.9,  # below all that load one
    "ragged": 0.5,  # below the autoencoder, which is made of it
    "sae": 1, "dead": 1, "scores": 1, "measures": 0.75, "stats": 1, "figures": 1, "hookpoint": 1, "loading": 1,
    "answers": 1, "hierarchy": 1, "detection": 1.25, "calibration": 1.25,  # both built on stats
    "interchange": 1.25,
    "listener": 1.25, "probe": 1.5,  # each builds on the one before
    "server": 1.5, "local": 1.5,
    "world": 2, "diffusion": 2, "activations": 2, "reservoir": 2.5, "scaling": 2, "pictures": 2, "embed": 2, "vlm": 2,
    "judges": 2.5, "steering": 2.5, "cards": 2.5, "label_scores": 2.75, "suggested": 2.75, "review": 2.5,
    "effects": 1.25, "fidelity": 1, "mixture": 1,  # effects are told by intervals on rates
    "judging": 2.6, "methods": 2.6, "looking": 2.7, "lab": 2.8, "causal": 2.9,  # what amplifying is made of
    "pareto": 1.25, "curves": 2.6, "drawings": 2.75,  # what the report shows of it
    "rivals": 2.25, "fresh": 2.25, "yardstick": 2.6, "matching": 2.7, "union": 2.75, "contrast": 1.5,
    "study_page": 2.75, "study_cards": 2.8,
    "page": 2.75, "exports": 2.75, "view": 3,
    **dict.fromkeys(STAGES, 3), "survey": 3, "ear": 1.5, "stream": 3.5, "plan": 3.75,
    "world.train": 3,  # remakes the bundled model; nothing imports it
    "audit": 4, "shared_sae": 4.1, "elsewhere": 4.15, "sweep": 4.25, "search": 4.25,
    "tables": 4, "progress": 4.5, "flags": 4.5, "cli": 5, "__init__": 5,
}  # fmt: skip


def imports_of(path: Path) -> set[str]:
    """The rooms that a module imports at any depth, but for imports that only a type checker sees."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            if node.module == "raigen":
                found.update(alias.name for alias in node.names)
            elif node.module and node.module.startswith("raigen."):
                found.add(room_of(node.module.split(".")[1:]))
        if isinstance(node, ast.Import):
            names = [alias.name.split(".")[1:] for alias in node.names if alias.name.startswith("raigen.")]
            found.update(map(room_of, names))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def room_of(parts: Sequence[str]) -> str:
    return "world.train" if tuple(parts[:2]) == ("world", "train") else parts[0].removesuffix(".py")


MODULES = sorted(path for path in SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_imports_point_down(path):
    room = room_of(path.relative_to(SOURCE).parts)
    assert room in LEVELS, f"{room} is no room of the design; give it a level"
    for imported in imports_of(path) - {room}:
        assert LEVELS[imported] < LEVELS[room], f"{room} imports {imported}, which is not below it"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_the_first_line_of_a_module_says_its_job(path):
    if path.stat().st_size:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert doc and doc.splitlines()[0].strip().endswith((".", ":", "?"))


def test_there_is_no_room_for_odds_and_ends():
    assert not [path for path in MODULES if path.stem in ("utils", "util", "helpers", "common", "misc")]


def test_nothing_is_pickled():
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        if path.stem == "interchange":  # reads what others have pickled, and of it tensors only
            assert text.count("torch.load(") == text.count("weights_only=True)") == 1
            text = text.replace("torch.load(", "")
        assert "import pickle" not in text and "torch.load(" not in text and "torch.save(" not in text, path


def test_the_reader_of_imports_reads_all_kinds(tmp_path):
    source = tmp_path / "x.py"
    source.write_text(
        "import raigen.sae\nfrom raigen import scores\nif TYPE_CHECKING:\n    from raigen.cli import main\n"
        "def f():\n    from raigen.world.judge import judge\nfrom raigen.world.train.unet import x\n"
    )
    assert imports_of(source) == {"sae", "scores", "world", "world.train"}


@pytest.mark.parametrize(
    "code",
    [
        "import raigen",
        "import raigen; raigen.audit; raigen.Run; raigen.SAEConfig; raigen.RaigenError; raigen.RareAttribute",
        "import raigen.cli; raigen.cli.main(['version'])",
        "import raigen.cli\ntry: raigen.cli.main(['--help'])\nexcept SystemExit: pass",
        "import raigen.cli; raigen.cli.main(['audit', 'a doctor', '--n-images', '3'])",
    ],
)
def test_light_things_load_no_heavy_library(code):
    heavy = "{'torch', 'diffusers', 'transformers', 'numpy', 'scipy', 'sklearn', 'altair'} & set(sys.modules)"
    script = f"import sys\n{code}\nloaded = {heavy}\nassert not loaded, loaded"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


NAMES = """
import types
import raigen
for name in raigen.__all__:
    assert getattr(raigen, name) is not None, name
assert sorted(dir(raigen)) == sorted(raigen.__all__)
assert isinstance(raigen.audit, types.FunctionType)
assert isinstance(raigen.train, types.ModuleType) and callable(raigen.train.fit)
assert callable(raigen.scores.minority_scores) and callable(raigen.scores.prune)
assert callable(raigen.world.portraits.draw)
assert callable(raigen.interchange.to_saelens) and callable(raigen.interchange.from_file)
"""


@pytest.mark.parametrize(
    "code",
    [
        "import raigen; f = raigen.audit",
        "from raigen import audit as f",
        "import raigen.audit; f = raigen.audit",
        "import raigen.audit as f",
        "import raigen.cli; f = raigen.audit",
        "from raigen.audit import audit as f",
        "import raigen; raigen.audit; import raigen.audit; f = raigen.audit",
        "from raigen.audit import walk; from raigen import audit as f",
        "import importlib; importlib.import_module('raigen.audit'); from raigen import audit as f",
    ],
)
def test_audit_is_the_function_in_whatever_order_things_are_imported(code):
    script = f"{code}\nimport types, sys\nassert isinstance(f, types.FunctionType) and f.__name__ == 'audit', f"
    script += "\nfrom raigen.audit import walk\nassert isinstance(sys.modules['raigen.audit'], types.ModuleType)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_all_public_names_are_there():
    done = subprocess.run([sys.executable, "-c", NAMES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_is_an_attribute_error():
    import raigen

    with pytest.raises(AttributeError, match="module 'raigen' has no attribute 'audits'"):
        raigen.audits  # noqa: B018
