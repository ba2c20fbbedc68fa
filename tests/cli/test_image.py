"""The command that a lightbox shows makes the image again, bit for bit."""

import pytest

from raigen.cli.main import main
from raigen.diffusion.generation import defaults, generate
from raigen.runs.files import sha256
from raigen.runs.images import as_png

OPTIONS = ["--num-inference-steps", "2"]


def test_the_image_of_a_batch_is_made_again_bit_for_bit(portraits, tmp_path, capsys):
    settings = defaults(portraits, "portraits")._replace(num_inference_steps=2)
    wanted = as_png(generate(portraits, "a photo of a doctor", [4, 5, 6], settings).images[1])
    path = tmp_path / "made.png"
    args = ["image", "a photo of a doctor", "--seed", "5", "--together", "4", "6", "--out", str(path), *OPTIONS]
    assert main([*args, "--sha256", sha256(wanted)[:8]]) == 0
    assert path.read_bytes() == wanted and "the same file, bit for bit" in capsys.readouterr().out
    assert main([*args, "--sha256", "00000000"]) == 0
    assert "not the same file bit for bit" in capsys.readouterr().out


def test_the_file_is_named_by_the_seed(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["image", "a photo of a doctor", "--seed", "7", *OPTIONS]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["seed-7.png"]


@pytest.mark.parametrize("together", [("6", "9"), ("2", "4"), ("-1", "9"), ("0", "5000")])
def test_a_batch_without_the_seed_is_refused(together, capsys):
    assert main(["image", "a photo of a doctor", "--seed", "5", "--together", *together]) == 2
    assert "the first and last seed of a batch around 5" in capsys.readouterr().err
