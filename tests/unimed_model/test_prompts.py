import pickle
import random
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unimed_model.data.mixture import Mixture
from unimed_model.data.sample import TASKS, Sample, Samples
from unimed_model.errors import UserError
from unimed_model.prompts import CHAT, PAPER, PROFILES, RELEASED, first_words, profile_named, prompt_pieces

BOX = (16, 36, 42, 61)


def sample(task="VQA", answer="Liver", boxes=(), **meta):
    return Sample("d", task, "train", "s1", "i1", None, "As a reader wrote it.", answer, boxes, meta)


class Pick(random.Random):
    """Draws a given entry of every pool."""

    def __init__(self, entry):
        super().__init__()
        self.entry = entry

    def choice(self, pool):
        return pool[self.entry]


REFER = [
    "Liver",
    "give me the location of Liver",
    "where is Liver ?",
    "from this image, tell me the location of Liver",
    "the location of Liver is",
    "could you tell me the location for Liver ?",
    "where can I locate the Liver ?",
]
IDENTIFY = [
    "{<16><36><42><61>}",
    "what object is in this location {<16><36><42><61>}",
    "identify the object present at this location {<16><36><42><61>}",
    "what is it in {<16><36><42><61>}",
    "describe this object in {<16><36><42><61>}",
    "this {<16><36><42><61>} is",
    "the object in {<16><36><42><61>} is",
]


@pytest.mark.parametrize("entry", range(7))
def test_released_regions_are_asked_in_lower_case_and_braces(entry):
    located = RELEASED.for_training(sample("REC", "old", (BOX,), templates="refer", subject="Liver"), Pick(entry))
    named = RELEASED.for_training(sample("REG", "Liver", (BOX,), templates="identify", subject="old"), Pick(entry))
    assert (located.instruction, located.answer) == (REFER[entry], "{<16><36><42><61>}")
    assert (named.instruction, named.answer) == (IDENTIFY[entry], "Liver")


@pytest.mark.parametrize(
    ("profile", "pool", "instruction"),
    [
        (PAPER, "refer", "Give me the location of X."),
        (RELEASED, "refer", "give me the location of X"),
        (PAPER, "vqa", "Based on the image, respond to this question with a short answer: X"),
        (RELEASED, "vqa", "Based on the image, respond to this question with a short answer: X"),
        (PAPER, "medqa", "If you are a doctor, please answer the following question briefly: X"),
        (RELEASED, "medqa", "If you are a doctor, please answer the following question briefly: X"),
        (
            PAPER,
            "pubmedqa",
            'If you are a doctor, please answer the following question using "yes", "no" or "maybe": X',
        ),
        (
            RELEASED,
            "pubmedqa",
            "If you are a doctor, please answer the following question using 'yes', 'no' or 'maybe': X",
        ),
        (RELEASED, "mimic_cxr", "Describe the given chest x-ray image in detail."),
        (RELEASED, "mpx_single", "Describe this input image."),
        (CHAT, "refer", "Give me the location of X."),
    ],
)
def test_evaluation_gives_one_instruction(profile, pool, instruction):
    assert profile.for_evaluation(sample(templates=pool, subject="X")).instruction == instruction


@pytest.mark.parametrize(
    ("profile", "text", "instruction"),
    [
        (PAPER, "<16><36><42><61>", "What object is in this location <16><36><42><61>?"),
        (RELEASED, "{<16><36><42><61>}", "what object is in this location {<16><36><42><61>}"),
    ],
)
def test_boxes_are_written_in_the_profile_s_format_whatever_the_reader_wrote(profile, text, instruction):
    located = profile.for_evaluation(sample("REC", "{<1><2><3><4>}", (BOX,), templates="refer", subject="Liver"))
    named = profile.for_evaluation(sample("REG", "Liver", (BOX,), templates="identify", subject="<1><2><3><4>"))
    assert located.answer == text
    assert named.instruction == instruction


def test_a_sample_without_pool_keeps_its_instruction():
    given = sample("CLS", subject="unused")
    for profile in PROFILES.values():
        assert profile.for_training(given, Pick(0)).instruction == given.instruction
        assert profile.for_evaluation(given).instruction == given.instruction


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
@pytest.mark.parametrize("task", TASKS)
def test_what_was_drawn_stays(profile, task):
    pool = {"QA": "medqa", "VQA": "vqa", "RG": "mpx_single", "REC": "refer", "REG": "identify"}.get(task)
    meta = {} if pool is None else {"templates": pool, "subject": " ".join(["word"] * 70)}
    drawn = profile.for_training(sample(task, "a  b " * 40, (BOX,), **meta), Pick(0))
    assert profile.for_evaluation(drawn) == drawn
    assert profile.for_training(drawn, Pick(1)) == drawn


def test_two_profiles_do_not_write_one_sample():
    written = PAPER.for_training(sample(templates="vqa", subject="X"), Pick(0))
    for again in (RELEASED.for_evaluation, lambda once: RELEASED.for_training(once, Pick(0))):
        with pytest.raises(ValueError, match="d/s1 was written by the prompt profile 'paper' and cannot be"):
            again(written)


# --- the cut after 50 words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "wanted"),
    [
        ("one two three", 2, "one two"),
        ("one two three", 3, "one two three"),
        ("  one \t two\n\n three\n", 9, "one two three"),
        ("one\ntwo three", 1, "one\ntwo"),
        ("\none two", 1, "\none"),
        ("one\ttwo three\tfour", 2, "one\ttwo three\tfour"),
        ("one ", 5, "one"),
        ("one\n", 5, "one"),
        ("", 5, ""),
    ],
)
def test_first_words_by_hand(text, words, wanted):
    assert first_words(text, words) == wanted


@given(st.text(alphabet="ab .\n\t\u00a0"), st.integers(1, 6))
def test_cutting_twice_changes_nothing(text, words):
    once = first_words(text, words)
    assert first_words(once, words) == once
    assert once.count(" ") < words
    assert re.sub(r"\s", "", text).startswith(re.sub(r"\s", "", once))


def numbered(count):
    return " ".join(f"w{number}" for number in range(1, count + 1))


def test_released_answers_and_questions_are_cut_after_fifty_words():
    asked = sample("VQA", numbered(60), templates="vqa", subject=numbered(80))
    for written in (RELEASED.for_training(asked, Pick(0)), RELEASED.for_evaluation(asked)):
        assert written.answer == numbered(50)
    assert RELEASED.for_training(asked, Pick(0)).instruction == numbered(50)
    # the prefix of the long form is no part of what is cut
    assert RELEASED.for_evaluation(asked).instruction.endswith(f"short answer: {numbered(50)}")
    assert RELEASED.for_evaluation(sample("RG", numbered(60), templates="mpx_single")).answer == numbered(50)
    for profile in (PAPER, CHAT):
        assert profile.for_training(asked, Pick(0)).answer == numbered(60)
        assert profile.for_evaluation(asked).instruction.endswith(numbered(80))


def test_the_identifier_and_the_prefix_count_where_a_released_vignette_is_cut():
    vignette = sample("QA", "zinc", templates="medqa", subject=numbered(80) + " Which step is next?")
    drawn = RELEASED.for_training(vignette, Pick(0))
    assert drawn.instruction == numbered(49)
    assert prompt_pieces("QA", drawn.instruction, False, RELEASED) == ("", f"[INST] [qa] {numbered(49)} [/INST]")
    # "If you are a doctor, please answer the following question briefly:" are 11 words
    assert RELEASED.for_evaluation(vignette).instruction == (
        f"If you are a doctor, please answer the following question briefly: {numbered(38)}"
    )
    without = profile_named("released", identifiers=False)
    assert without.for_training(vignette, Pick(0)).instruction == numbered(50)


def test_class_lists_are_not_cut():
    given = Sample("d", "CLS", "train", "s", "i", None, numbered(70), "spleen")
    assert RELEASED.for_evaluation(given).instruction == numbered(70)


# --- the prompt around the instruction ------------------------------------------------------------------------------

PROMPTS = {
    ("paper", "training", "VQA"): ("[INST] <Img>", "</Img> [vqa] Q [/INST]"),
    ("paper", "evaluation", "VQA"): ("[INST] <Img>", "</Img> [vqa] Q [/INST]"),
    ("paper", "evaluation", "RG"): ("[INST] <Img>", "</Img> [caption] Q [/INST]"),
    ("paper", "training", "QA"): ("", "[INST] [qa] Q [/INST]"),
    ("released", "training", "VQA"): ("[INST] <Img>", "</Img> [vqa] Q  [/INST]"),
    ("released", "training", "RG"): ("[INST] <Img>", "</Img> [caption] Q  [/INST]"),
    ("released", "training", "REC"): ("[INST] <Img>", "</Img> [refer] Q  [/INST]"),
    ("released", "training", "REG"): ("[INST] <Img>", "</Img> [identify] Q  [/INST]"),
    ("released", "training", "CLS"): ("[INST] <Img>", "</Img> [cls] Q  [/INST]"),
    ("released", "training", "QA"): ("", "[INST] [qa] Q [/INST]"),
    ("released", "evaluation", "VQA"): ("[INST] <Img>", "</Img> [vqa] Q [/INST]"),
    ("released", "evaluation", "RG"): ("[INST] <Img>", "</Img> [caption] Q  [/INST]"),
    ("released", "evaluation", "REC"): ("[INST] <Img>", "</Img> [refer] Q [/INST]"),
    ("released", "evaluation", "REG"): ("[INST] <Img>", "</Img> [identify] Q [/INST]"),
    ("released", "evaluation", "CLS"): ("[INST] <Img>", "</Img> [cls] Q [/INST]"),
    ("chat", "training", "VQA"): ("<Img>", "</Img> [vqa] Q"),
    ("chat", "evaluation", "QA"): ("", "[qa] Q"),
}


@pytest.mark.parametrize(("key", "pieces"), PROMPTS.items(), ids=["-".join(key) for key in PROMPTS])
def test_prompts_by_hand(key, pieces):
    name, use, task = key
    assert prompt_pieces(task, "Q", task != "QA", PROFILES[name], use) == pieces


def test_identifiers_can_be_left_out():
    assert prompt_pieces("VQA", "Q", True, profile_named("paper", False)) == ("[INST] <Img>", "</Img> Q [/INST]")
    assert prompt_pieces("QA", "Q", False, profile_named("chat", False)) == ("", "Q")


def test_begin_tokens_are_doubled_in_released_evaluation_alone():
    counts = {
        (name, use): profile.begin_tokens[use] for name, profile in PROFILES.items() for use in profile.two_spaces
    }
    assert counts == {
        ("paper", "training"): 1,
        ("paper", "evaluation"): 1,
        ("released", "training"): 1,
        ("released", "evaluation"): 2,
        ("chat", "training"): 0,
        ("chat", "evaluation"): 0,
    }


def test_wrong_names_are_told_apart():
    with pytest.raises(UserError, match=r"no prompt profile 'relased'; the nearest is 'released'"):
        profile_named("relased")
    with pytest.raises(UserError, match="no task 'vqa'; tasks are QA, VQA"):
        prompt_pieces("vqa", "Q", True)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_profiles_can_be_sent_to_workers(profile):
    assert pickle.loads(pickle.dumps(profile)) == profile


def test_prompts_need_neither_torch_nor_transformers():
    code = "import sys, unimed_model.prompts; print([m for m in ('torch', 'transformers', 'PIL') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


# --- mixtures -------------------------------------------------------------------------------------------------------


def mixture(profile=PAPER):
    records = [sample("REC", "x", (BOX,), templates="refer", subject="Liver") for _ in range(5)]
    return Mixture({"a": Samples(records)}, 4, 20, 3, profile)


def test_a_mixture_writes_samples_in_its_profile():
    drawn = mixture(RELEASED)
    seen = {drawn[draw].instruction for batch in drawn for draw in batch}
    assert seen == set(REFER)
    assert {drawn[draw].answer for batch in drawn for draw in batch} == {"{<16><36><42><61>}"}


def test_profiles_share_one_sequence_of_draws():
    paper, released = mixture(), mixture(RELEASED)
    assert list(paper) == list(released)
    for batch in paper:
        for draw in batch:
            place = PAPER.pools["refer"].index(paper[draw].instruction.replace("Liver", "{}"))
            assert released[draw].instruction == REFER[place]
