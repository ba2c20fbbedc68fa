"""Answers are read whatever stands around them, and what is none is never taken for one."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raigen.judging.vlm.questions import (
    Annotation,
    Token,
    annotation_question,
    presence_question,
    read_annotation,
    read_presence,
    yes_share,
)

noise = st.text(st.characters(exclude_characters="{}"), max_size=40)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ANNOTATION = {
    "evidence": "hats", "n_showing": 9, "n_control": 1, "attribute": " a  red hat ", "suggested_prompt": " p ",
    "keywords": ["hat", "red", "felt", "wool"],
}  # fmt: skip


@given(noise, st.sampled_from(["yes", "no", "unsure"]), st.text(max_size=20), noise)
@settings(deadline=None)
def test_a_verdict_is_found_in_any_surroundings(before, verdict, evidence, after):
    answer = json.dumps({"evidence": evidence, "answer": verdict.title()})
    assert read_presence(f"{before}\n```json\n{answer}\n```{after}") == verdict


@given(st.text() | json_values.map(json.dumps))
@settings(deadline=None)
def test_nothing_that_is_read_raises_and_only_three_words_are_verdicts(text):
    assert read_presence(text) in ("yes", "no", "unsure", None)
    found = read_annotation(text)
    assert found is None or isinstance(found, Annotation)
    if not any(word in text.lower() for word in ("yes", "no", "unsure", "true", "false")):
        assert read_presence(text) is None


def test_an_annotation_is_read():
    text = f"Here: {json.dumps(ANNOTATION)} -- done"
    assert read_annotation(text) == Annotation("hats", 9, 1, "a red hat", "p", ("hat", "red", "felt"))
    assert read_annotation("[" * 20_000 + "{" * 2_000) is None


@pytest.mark.parametrize("name", ANNOTATION)
@given(value=json_values)
@settings(deadline=None, max_examples=20)
def test_an_annotation_with_a_field_missing_or_of_another_type_is_none(name, value):
    assert read_annotation(json.dumps({k: v for k, v in ANNOTATION.items() if k != name})) is None
    if type(value) is not type(ANNOTATION[name]) or (
        isinstance(value, list) and not all(type(v) is str for v in value)
    ):
        assert read_annotation(json.dumps(ANNOTATION | {name: value})) is None


@pytest.mark.parametrize("word", ["", "none", "No identified attribute.", "N/A"])
def test_nothing_can_be_said_in_many_words(word):
    assert read_annotation(json.dumps(ANNOTATION | {"attribute": word})).attribute == ""


@given(st.floats(0.01, 0.98), st.floats(0.005, 0.01), st.sampled_from(["", '"', ' "', "{'"]))
@settings(deadline=None)
def test_the_share_of_yes_is_taken_at_the_verdict_whatever_the_tokens_are(yes, no, glue):
    """The same answer cut into tokens in several ways, with `yes` in other places, too."""
    options = ((f"{glue}yes", math.log(yes)), (f"{glue}no", math.log(no)), ("yes", -0.1) if glue else ("maybe", -9.0))
    head = [Token('{"evidence": "yes, yes"', (("x", -1.0), ("y", -1.0))), Token(', "answer"', ()), Token(":", ())]
    if glue in ('"', ' "'):
        tokens = [*head, Token(f"{glue}yes", options), Token('"}', ())]
    else:
        plain = (("yes", math.log(yes)), ("no", math.log(no)))
        tokens = [*head, Token(' "', ()), Token("yes", plain), Token('"}', ())]
    assert yes_share(tokens) == pytest.approx(yes / (yes + no))


def test_without_alternatives_there_is_no_share():
    assert yes_share([]) is None
    assert yes_share([Token("yes", ())]) is None
    assert yes_share([Token("yes", (("yes", -0.1),))]) is None
    assert yes_share([Token('{"answer": "', ()), Token("perhaps", (("perhaps", -0.1), ("maybe", -2.0)))]) is None


def test_the_questions_say_what_is_asked_and_in_which_form():
    question = presence_question("a “cat”")
    assert "“a “cat””" in question.text and "JSON" in question.text
    assert list(question.schema["properties"]) == question.schema["required"] == ["evidence", "answer"]
    question = annotation_question("a photo of a doctor", 10, 9)
    assert all(
        word in question.text for word in ("a photo of a doctor", "the 10 pictures", "9 random pictures", "80 %")
    )
    assert set(question.schema["required"]) == set(ANNOTATION) and question.schema["additionalProperties"] is False
