"""The wheel holds the right files, and works in an environment without our checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "raigen"


def run(*command: object, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it may lead to our checkout
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory):
    """The commands of an environment with the wheel and our dependencies, but without our checkout."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", with_pip=False)
    site = next((folder / "venv" / "lib").glob("python*/site-packages"))
    # A path in a .pth file is no site folder: the .pth file there that leads to our checkout is not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "venv" / "bin" / "python"
    run(
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--no-compile",
        wheel,
        cwd=folder,
    )
    return python.parent


def test_the_wheel_holds_the_files_of_the_package_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src/raigen"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    expected = {name.removeprefix("src/") for name in listed if name and (ROOT / name).is_file()}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {"raigen/py.typed", "raigen/world/rates.toml"} <= names
    assert {Path(name).suffix for name in expected} >= {".py", ".toml", ".jinja", ".css", ".js"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_installed_package_is_the_wheel_and_runs(clean, tmp_path):
    where = run(clean / "python", "-c", "import raigen; print(raigen.__file__)", cwd=tmp_path)
    assert where.startswith(str(clean.parent))
    assert run(clean / "raigen", "version", cwd=tmp_path) == "raigen 0.1.0\n"
    assert "audit" in run(clean / "raigen", "--help", cwd=tmp_path)


def test_the_installed_package_finds_its_data(clean, tmp_path):
    code = "from raigen.world.planted import rates; print(len(rates('a photo of a doctor')) > 0)"
    assert run(clean / "python", "-c", code, cwd=tmp_path) == "True\n"


def test_the_installed_package_audits_a_prompt_with_what_it_ships(clean, tmp_path):
    printed = run(
        clean / "raigen", "audit", "a photo of a farmer", "--n-images", 50, "--n-fresh-images", 4,
        "--num-inference-steps", 2, "--min-images", 2, "--n-suggested-images", 0, "--d-sae", 64, "--k", 4, cwd=tmp_path,
    )  # fmt: skip
    assert "runs/a-photo-of-a-farmer/report.html" in printed
    assert (tmp_path / "runs" / "a-photo-of-a-farmer" / "report.html").is_file()
