"""The benchmark of full-size denoisers: the architectures are the published ones, and a CPU's run says what it is."""

import json

import pytest

from benchmarks.cost.full_size import ARCHITECTURES, Bench, Options, main


def test_without_a_gpu_the_result_says_that_it_is_a_smoke_test(tmp_path):
    main(Options(device="cpu", only=("SDXL",), repeats=1, training_steps=1, results=tmp_path))
    result = json.loads((tmp_path / "full_size.json").read_text())
    assert result["smoke_test"] is True and result["gpu"] is None and "no GPU was available" in result["note"]
    (row,) = result["architectures"].values()
    assert row["parameters of the full size"] == 2_567_463_684  # as the published weights have
    assert row["parameters that ran"] < row["parameters of the full size"] / 1000
    assert row["tokens per image"] == row["steps"] * row["grid"][0] * row["grid"][1]
    assert row["bytes per image on disk, all steps"] == 2 * row["tokens per image"] * row["d_in"]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda each: each.name)
def test_the_image_tokens_are_found_in_every_architecture(architecture):
    bench = Bench(architecture, "cpu", full=False)
    layout = bench.layout()
    assert layout.branch == (1 if architecture.guided else 0)  # the prompt's
    assert layout.grid[0] == layout.grid[1] and bench.latent % layout.grid[0] == 0
