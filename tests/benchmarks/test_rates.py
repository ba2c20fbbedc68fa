"""The simulated audits of the benchmark of rates: what is drawn, what is counted, and that wrong calibrations show."""

import numpy as np
import pytest

from benchmarks.common.figures import coverage_figure
from benchmarks.rates.simulated import KINDS, Judge, Kind, audit, cell

POOR = Judge(0.8, 0.95)


def by_mode(kind: Kind, rate: float = 0.01, n_audits: int = 60) -> dict[str, dict]:
    return {row["mode"]: row for row in cell(np.random.default_rng(0), rate, 300, POOR, kind, n_audits)}


def test_an_audit_is_drawn_from_its_judge_and_its_calibration():
    rng = np.random.default_rng(0)
    found = [audit(rng, 0.1, 1000, POOR, KINDS["look-alike negatives"]) for _ in range(200)]
    assert np.mean([one.raw.hits for one in found]) == pytest.approx(1000 * (0.1 * 0.8 + 0.9 * 0.05), rel=0.03)
    assert np.mean([one.shows.sum() for one in found]) == pytest.approx(100, rel=0.03)
    assert np.mean([one.known.true_yes / 50 for one in found]) == pytest.approx(0.8, abs=0.02)
    assert np.mean([one.known.true_no / 200 for one in found]) == pytest.approx(0.75, abs=0.02)


def test_a_random_sample_repairs_what_a_wrong_one_does_not():
    right, wrong = by_mode(KINDS["random sample"]), by_mode(KINDS["easy negatives"])
    assert list(right) == ["calibrated", "checked", "raw"] and list(wrong) == ["calibrated"]
    assert right["raw"]["coverage"] < 0.1 and right["raw"]["bias"] == pytest.approx(0.0475, abs=0.01)
    assert right["calibrated"]["coverage"] > 0.9 and right["checked"]["coverage"] > 0.9
    assert wrong["calibrated"]["coverage"] < 0.3 and wrong["calibrated"]["bias"] > 0.02
    alike = by_mode(KINDS["look-alike negatives"])["calibrated"]
    assert alike["told"] == 1 and right["raw"]["told"] < 0.1


def test_the_figure_of_coverage_has_a_panel_for_each_judge(tmp_path):
    rows = [
        {"sensitivity": 0.9, "specificity": sp, "n": 1000, "rate": 0.01, "calibration": "random sample", **row}
        for sp in (0.99, 0.95)
        for row in cell(np.random.default_rng(0), 0.01, 50, POOR, KINDS["random sample"], 2)
    ]
    coverage_figure(rows, tmp_path / "rates.svg")
    text = (tmp_path / "rates.svg").read_text()
    assert text.startswith("<svg") and "Se 0.9, Sp 0.99" in text and "Se 0.9, Sp 0.95" in text and "raw" in text
