"""What is offered to trust a rate: only what applies, in the terminal and on the page."""

import json
from pathlib import Path

import pytest

from raigen.cli.tables import print_trust
from raigen.judging import trust
from raigen.judging.clip_judge import NAME
from raigen.judging.review import digest, review, tasks
from raigen.judging.trust import disagreements, known_error, ways
from raigen.runs.run import Run
from tests.support.run_folder import make_run, text_of, write


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run")


def add_judge(run: Run, neuron: int, shows: dict[int, bool]) -> None:
    """A second judge's verdicts on the fresh images of one neuron, by index."""
    lines = [{"file": f"fresh/{i:06d}.png", "seed": i, "neuron": neuron, "label": "x", "judge": "another",
              "shows": answer, "confidence": None} for i, answer in shows.items()]  # fmt: skip
    with run.judgements_path.open("a") as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines))


def test_the_review_is_offered_until_it_is_done(run):
    (way,) = ways(run, "RUN", tasks(run), disagreements(run))
    assert way.title == "Look for yourself" and "shows 20 images of each of 3 attributes" in way.text
    assert "raigen review RUN review.json" in way.text and "points wide" in way.text
    reviewed = [
        {"neuron": task.attribute.neuron, "label": task.attribute.label, "sha256": digest(task.images), "shows": [],
         "does_not": [sample.file for sample in task.images]}
        for task in tasks(run)
    ]  # fmt: skip
    ticks = run.dir.parent / "ticks.json"
    ticks.write_text(json.dumps({"format": 1, "reviewed": reviewed}))
    review(run, ticks)
    assert ways(run, "RUN", tasks(run), disagreements(run)) == []


def test_images_on_which_judges_disagree_are_shown_with_who_saw_it(run, capsys):
    neuron = run.attributes[0].neuron  # the first judge sees it in images 0 and 1, and left 23 unscored
    assert disagreements(run) == {}
    add_judge(run, neuron, {0: True, 1: False, 2: None, 23: True, **dict.fromkeys(range(3, 20), True)})
    first, second = disagreements(run)[neuron]
    assert (first.yes, first.no, first.n) == ("portraits judge", "another", 1)
    assert (second.yes, second.no, second.n) == ("another", "portraits judge", 17)
    assert [sample.index for sample in first.images] == [1]
    assert [sample.index for sample in second.images] == list(range(3, 14))  # twelve in all
    write(run)
    text, html = text_of(run), run.report().read_text()
    assert "another sees it, portraits judge does not, 11 of 17 images" in text
    assert "portraits judge sees it, another does not, 1 of 1 image" in text
    assert html.count('alt="disputed image, seed') == 12
    assert "How far to trust the judge" in text and "disagree in 18 verdicts on 1 attribute" in text
    print_trust(run)
    out = capsys.readouterr().out
    assert "portraits judge and another disagree in 18 verdicts" in out and f"next: raigen report {run.dir}" in out
    assert f"raigen review {run.dir} review.json" in out


def test_a_known_error_stands_beside_the_rate(run, monkeypatch, capsys):
    assert known_error("portraits judge") is None
    monkeypatch.setitem(trust.KNOWN_ERRORS, "portraits judge", "0.1 points too high on average.")
    write(run)
    text = text_of(run)
    assert text.count("portraits judge, where the truth is known: 0.1 points too high") == 3  # one has no name
    assert "Known error of portraits judge" in text
    print_trust(run)
    assert "Known error of portraits judge: 0.1 points too high on average." in capsys.readouterr().out


def test_the_known_error_of_clip_is_what_was_measured():
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "clip_rates.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    named, every = found["listed, rightly named, others"], found["listed, others"]
    text = trust.KNOWN_ERRORS[NAME]
    assert f"off by {named['absolute error']['mean']:.2f} points" in text
    assert f"{named['more than twice']['mean']:.0%}".replace("%", " %") + " of them were more than twice" in text
    assert f"{named['interval holds the true rate']['mean']:.0%}".replace("%", " %") + " of the intervals" in text
    assert named["error"]["low"] < 0 < named["error"]["high"] and every["error"]["mean"] > 0
    assert f"off by {every['absolute error']['mean']:.2f} points" in text
    assert f"{every['more than twice']['mean']:.0%}".replace("%", " %") + " were more than twice" in text
