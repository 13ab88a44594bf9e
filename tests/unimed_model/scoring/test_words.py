import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.scoring.words import generated, normalise, words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Left  Lung.", ("left", "lung")),
        ("(x-ray), 1.5 cm", ("x-ray", "1.5", "cm")),
        ("lung . heart", ("lung", "heart")),
        ("+", ("+",)),
        (" \n", ()),
    ],
)
def test_words_of_the_paper_flavour(text, wanted):
    assert words(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The left Lung", "left lung"),
        ("none", "0"),
        ("two or Ten", "2 or 10"),
        ("it isnt", "it isn't"),
        ("couldntve couldn'tve", "couldntve couldn't've"),
        ("somebody'd", "somebodyd"),
        ("x-ray", "x ray"),  # a hyphen within a word is a blank,
        ("x-ray - chest", "xray chest"),  # but is removed throughout where one stands beside a blank
        ("a/b, c", "b c"),  # the slash is a blank, then the article goes
        ("1,000 x-rays", "1000 xrays"),  # digits joined by a comma: every mark is removed
        ("no effusion.", "no effusion"),
        ("size 1.5 cm.", "size 1.5 cm"),
        ("." * 40 + "a", "........a"),  # only 32 full stops go
        ("?", ""),
        ("", ""),
    ],
)
def test_released_normaliser(text, wanted):
    assert normalise(text) == wanted


def test_generated_text_is_lower_case_without_unknown_tokens():
    assert generated(" <UNK>Left <unk>Lung\n") == "left lung"


@given(st.text(alphabet="ab ,.-'1/", max_size=30))
def test_normalised_text_has_single_blanks_and_no_outer_ones(text):
    found = normalise(text)
    assert found == " ".join(found.split())
