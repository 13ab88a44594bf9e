"""Token ids, labels and image positions of every profile, against tokens written out by hand from the published facts.

One word is one token; `_` is the mark that a tokenizer gives to a blank.
"""

import random

import pytest
from PIL import Image

from unimed_model.data.collator import Collator
from unimed_model.data.sample import TASKS, Sample
from unimed_model.processing import IGNORED, Turn

from .tokenizer_kinds import IMAGE_TOKENS, llama_like, processor_of, smollm_like

BLACK = Image.new("RGB", (20, 10))

IMAGE = "[ INST ] _< Img >"
DOCTOR = "_If _you _are _a _doctor , _please _answer _the _following _question _using"
BARE_BOX = "< 1 6 >< 3 6 >< 4 2 >< 6 1 >"
SHORT = "_Based _on _the _image , _respond _to _this _question _with _a _short _answer : _what _organ _is _it ?"
ORGANS = "_Which _category _does _this _CT _image _belong _to : _liver _or _spleen ?"
SUMMARY = "_Can _you _provide _a _brief _summary _of _the _radiology _image ?"

PAPER = {
    ("QA", "training"): (
        "",
        f'[ INST ] _[ qa ] {DOCTOR} _" yes " , _" no " _or _" maybe " : _Does _mint _help ? _[ / INST ]',
    ),
    ("QA", "evaluation"): (
        "",
        f'[ INST ] _[ qa ] {DOCTOR} _" yes " , _" no " _or _" maybe " : _Does _mint _help ? _[ / INST ]',
    ),
    ("VQA", "training"): (IMAGE, "</ Img > _[ v qa ] _what _organ _is _it ? _[ / INST ]"),
    ("VQA", "evaluation"): (IMAGE, f"</ Img > _[ v qa ] {SHORT} _[ / INST ]"),
    ("RG", "training"): (IMAGE, f"</ Img > _[ caption ] {SUMMARY} _[ / INST ]"),
    ("RG", "evaluation"): (IMAGE, "</ Img > _[ caption ] _Describe _this _input _image . _[ / INST ]"),
    ("REC", "training"): (IMAGE, "</ Img > _[ refer ] _Where _is _Liver ? _[ / INST ]"),
    ("REC", "evaluation"): (IMAGE, "</ Img > _[ refer ] _Give _me _the _location _of _Liver . _[ / INST ]"),
    ("REG", "training"): (
        IMAGE,
        f"</ Img > _[ identify ] _What _object _is _in _this _location _{BARE_BOX} ? _[ / INST ]",
    ),
    ("REG", "evaluation"): (
        IMAGE,
        f"</ Img > _[ identify ] _What _object _is _in _this _location _{BARE_BOX} ? _[ / INST ]",
    ),
    ("CLS", "training"): (IMAGE, f"</ Img > _[ cls ] {ORGANS} _[ / INST ]"),
    ("CLS", "evaluation"): (IMAGE, f"</ Img > _[ cls ] {ORGANS} _[ / INST ]"),
}
RELEASED = {
    ("QA", "training"): (
        "",
        f"[ INST ] _[ qa ] {DOCTOR} _' yes ' , _' no ' _or _' maybe ' : _Does _mint _help ? _[ / INST ]",
    ),
    ("QA", "evaluation"): (
        "",
        f"[ INST ] _[ qa ] {DOCTOR} _' yes ' , _' no ' _or _' maybe ' : _Does _mint _help ? _[ / INST ]",
    ),
    ("VQA", "training"): (IMAGE, "</ Img > _[ v qa ] _what _organ _is _it ? _ _[ / INST ]"),
    ("VQA", "evaluation"): (IMAGE, f"</ Img > _[ v qa ] {SHORT} _[ / INST ]"),
    ("RG", "training"): (IMAGE, f"</ Img > _[ caption ] {SUMMARY} _ _[ / INST ]"),
    ("RG", "evaluation"): (IMAGE, "</ Img > _[ caption ] _Describe _this _input _image . _ _[ / INST ]"),
    ("REC", "training"): (IMAGE, "</ Img > _[ refer ] _where _is _Liver _? _ _[ / INST ]"),
    ("REC", "evaluation"): (IMAGE, "</ Img > _[ refer ] _give _me _the _location _of _Liver _[ / INST ]"),
    ("REG", "training"): (
        IMAGE,
        f"</ Img > _[ identify ] _what _object _is _in _this _location _{{ {BARE_BOX} }} _ _[ / INST ]",
    ),
    ("REG", "evaluation"): (
        IMAGE,
        f"</ Img > _[ identify ] _what _object _is _in _this _location _{{ {BARE_BOX} }} _[ / INST ]",
    ),
    ("CLS", "training"): (IMAGE, f"</ Img > _[ cls ] {ORGANS} _ _[ / INST ]"),
    ("CLS", "evaluation"): (IMAGE, f"</ Img > _[ cls ] {ORGANS} _[ / INST ]"),
}
SYSTEM = "<|im_start|> system Ċ You _are _a _helpful _assistant . <|im_end|> Ċ <|im_start|> user Ċ"
TO_ANSWER = "<|im_end|> Ċ <|im_start|> assistant Ċ"
CHAT = {
    ("QA", "training"): (
        "",
        f'{SYSTEM} [ qa ] {DOCTOR} _" yes " , _" no " _or _" maybe " : _Does _mint _help ? {TO_ANSWER}',
    ),
    ("VQA", "training"): (f"{SYSTEM} < Img >", f"</ Img > _[ v qa ] _what _organ _is _it ? {TO_ANSWER}"),
    ("VQA", "evaluation"): (f"{SYSTEM} < Img >", f"</ Img > _[ v qa ] {SHORT} {TO_ANSWER}"),
    ("RG", "evaluation"): (f"{SYSTEM} < Img >", f"</ Img > _[ caption ] _Describe _this _input _image . {TO_ANSWER}"),
    ("REC", "training"): (f"{SYSTEM} < Img >", f"</ Img > _[ refer ] _Where _is _Liver ? {TO_ANSWER}"),
    ("REG", "evaluation"): (
        f"{SYSTEM} < Img >",
        f"</ Img > _[ identify ] _What _object _is _in _this _location _{BARE_BOX} ? {TO_ANSWER}",
    ),
    ("CLS", "training"): (f"{SYSTEM} < Img >", f"</ Img > _[ cls ] {ORGANS} {TO_ANSWER}"),
}
ANSWERS = {"QA": "yes", "VQA": "Liver", "RG": "No _change .", "REC": BARE_BOX, "REG": "Liver", "CLS": "spleen"}

KINDS = {"llama": (llama_like, "▁", "<s>", "</s>"), "smollm2": (smollm_like, "Ġ", "<|im_start|>", "<|im_end|>")}
GOLDEN = [
    (kind, name, *key, *pieces)
    for name, table, kinds in (("paper", PAPER, KINDS), ("released", RELEASED, KINDS), ("chat", CHAT, ["smollm2"]))
    for kind in kinds
    for key, pieces in table.items()
]

ENTRY = {"QA": 1, "VQA": 0, "RG": 4, "REC": 2, "REG": 1}
"""Which template of its pool training draws here."""


class Pick(random.Random):
    """Draws a given entry of every pool."""

    def __init__(self, entry):
        super().__init__()
        self.entry = entry

    def choice(self, pool):
        return pool[self.entry]


class Picture:
    """An image source without a file."""

    def open(self):
        return BLACK


def sample(task):
    pools = {"QA": "pubmedqa", "VQA": "vqa", "RG": "mpx_single", "REC": "refer", "REG": "identify"}
    subjects = {"QA": "Does mint help?", "VQA": "what organ is it?", "REC": "Liver"}
    answers = {"QA": "yes", "VQA": "Liver", "RG": "No change.", "REG": "Liver", "CLS": "spleen"}
    meta = {} if task == "CLS" else {"templates": pools[task], "subject": subjects.get(task, "")}
    return Sample(
        dataset="d",
        task=task,
        split="train",
        sample_id="s",
        image_id=None if task == "QA" else "i",
        patient_id=None,
        instruction="Which category does this CT image belong to: liver or spleen?",
        answer=answers.get(task, ""),
        boxes=((16, 36, 42, 61),) if task in ("REC", "REG") else (),
        meta=meta,
        image_source=None if task == "QA" else Picture(),
    )


def ids_of(words, kind, starts_a_text=True):
    """Token ids of words written by hand; LLaMA's kind marks the start of every text as if a blank stood there."""
    make, mark, *_ = KINDS[kind]
    vocabulary = make().get_vocab()
    tokens = [mark + word[1:] if word.startswith("_") else word for word in words.split()]
    if kind == "llama" and tokens and starts_a_text:
        tokens[0] = mark + tokens[0]
    return [vocabulary[token] for token in tokens]


@pytest.mark.parametrize(
    ("kind", "profile", "task", "use", "before", "after"), GOLDEN, ids=["-".join(case[:4]) for case in GOLDEN]
)
def test_prompts_labels_and_image_positions_are_those_written_by_hand(kind, profile, task, use, before, after):
    make, _, begin, end = KINDS[kind]
    processor = processor_of(make(), profile)
    vocabulary = make().get_vocab()
    begins = {"paper": 1, "released": 2 if use == "evaluation" else 1, "chat": 0}[profile]
    start = [vocabulary[begin]] * begins + ids_of(before, kind)
    image = [] if task == "QA" else [len(vocabulary)] * IMAGE_TOKENS
    prompt = start + image + ids_of(after, kind)
    if use == "evaluation":
        batch = processor.generation_batch([Turn.of(processor.prompts.for_evaluation(sample(task)))])
        assert batch["input_ids"].tolist() == [prompt]
        assert "labels" not in batch
    else:
        drawn = processor.prompts.for_training(sample(task), Pick(ENTRY.get(task)))
        batch = Collator(processor)([drawn])
        words = f"{{ {ANSWERS[task]} }}" if profile == "released" and task == "REC" else ANSWERS[task]
        answer = [*ids_of(words, kind), vocabulary[end]]
        assert batch["input_ids"].tolist() == [prompt + answer]
        assert batch["labels"].tolist() == [[IGNORED] * len(prompt) + answer]
    positions = (batch["input_ids"][0] == processor.image_token_id).nonzero()[:, 0].tolist()
    assert positions == [len(start) + place for place in range(len(image))]
    assert batch["attention_mask"].all()


def test_every_task_is_golden_in_training_and_evaluation():
    for table in (PAPER, RELEASED):
        assert set(table) == {(task, use) for task in TASKS for use in ("training", "evaluation")}
    assert {task for task, _ in CHAT} == set(TASKS)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{<16><36><42><61>}", 15),
        ("[INST] <Img>", 6),
        ("</Img> [vqa] what organ is it? [/INST]", 16),
        ("</Img> [vqa] what organ is it?  [/INST]", 17),
    ],
)
def test_the_small_llama_tokenizer_counts_as_the_real_one(text, count):
    assert len(llama_like()(text, add_special_tokens=False)["input_ids"]) == count


def test_the_small_llama_tokenizer_has_the_traps_of_the_real_one():
    tokenizer = llama_like()
    assert tokenizer("Liver")["input_ids"][0] == tokenizer.bos_token_id
    assert "pad_token" not in tokenizer.special_tokens_map
    assert tokenizer.tokenize("é") == ["▁", "<0xC3>", "<0xA9>"]
    assert tokenizer.eos_token_id in tokenizer("a</s>b")["input_ids"]
