"""Instructions: pools for training and fixed ones for evaluation, as in Appendix C and as in the released code.

A pool is named by `Sample.meta["templates"]`; `{}` is the slot that `Sample.meta["subject"]` fills: the
question (QA, VQA), the name of the object (REC), or the box text (REG). Subjects keep their case: the
paper's examples lower-case a question inside a sentence, the released code does not.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unimed_model.data.sample import Sample

_DOCTOR = "If you are a doctor, please answer the following question"
_SHORT_ANSWER = "Based on the image, respond to this question with a short answer: {}"

TRAINING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "medqa": ("{}", f"{_DOCTOR} briefly: {{}}"),
        "pubmedqa": ("{}", f'{_DOCTOR} using "yes", "no" or "maybe": {{}}'),
        "qa": ("{}", "Please answer the following question briefly: {}"),
        "vqa": ("{}", _SHORT_ANSWER),
        "refer": (
            "{}.",
            "Give me the location of {}.",
            "Where is {}?",
            "From this image, tell me the location of {}.",
            "The location of {} is",
            "Could you tell me the location for {}?",
            "Where can I locate the {}?",
        ),
        "identify": (
            "{}",
            "What object is in this location {}?",
            "Identify the object present at this location {}.",
            "What is it in {}?",
            "Describe this object in {}.",
            "This {} is",
            "The object in {} is",
        ),
        "mimic_cxr": (
            "Describe the given chest x-ray image in detail.",
            "Take a look at this chest x-ray and describe the findings and impression.",
            "Could you provide a detailed description of the given x-ray image?",
            "Describe the given chest x-ray image as detailed as possible.",
            "What are the key findings in this chest x-ray image?",
        ),
        "mpx_single": (
            "Describe this input image.",
            "Help captioning the image.",
            "What can be inflected from the scan?",
            "Can you give a caption for this image?",
            "Can you provide a brief summary of the radiology image?",
            "Please write a report about the image?",
            "Can you provide an analysis of this image?",
            "Can you explain what is shown in this image?",
            "What can be indicated from the radiologic scans?",
            "What can you infer from this photograph?",
        ),
    }
)
"""Pool -> its training instructions, verbatim from Appendix C; `qa` is ours, for questions of users' own data."""

EVALUATION: Mapping[str, str] = MappingProxyType(
    {
        "medqa": TRAINING["medqa"][1],
        "pubmedqa": TRAINING["pubmedqa"][1],
        "qa": TRAINING["qa"][1],
        "vqa": _SHORT_ANSWER,
        "refer": "Give me the location of {}.",
        "identify": "What object is in this location {}?",
        "mimic_cxr": "Describe the given chest x-ray image in detail.",
        "mpx_single": "Describe this input image.",
    }
)
"""Pool -> the one instruction used in evaluation: the released code's choice in the paper's spelling. That code
evaluates no QA, where the form that asks for the kind of answer is taken, as it is for VQA."""

RELEASED_TRAINING: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **TRAINING,
        "pubmedqa": ("{}", f"{_DOCTOR} using 'yes', 'no' or 'maybe': {{}}"),
        "refer": (
            "{}",
            "give me the location of {}",
            "where is {} ?",
            "from this image, tell me the location of {}",
            "the location of {} is",
            "could you tell me the location for {} ?",
            "where can I locate the {} ?",
        ),
        "identify": (
            "{}",
            "what object is in this location {}",
            "identify the object present at this location {}",
            "what is it in {}",
            "describe this object in {}",
            "this {} is",
            "the object in {} is",
        ),
    }
)
"""Pool -> its training instructions in the released code (MSIIP/Uni-Med, uni_med/datasets/datasets, read at commit
5c902a5): other than Appendix C where regions and PubMedQA are asked about."""

RELEASED_EVALUATION: Mapping[str, str] = MappingProxyType(
    {
        **EVALUATION,
        "pubmedqa": RELEASED_TRAINING["pubmedqa"][1],
        "refer": "give me the location of {}",
        "identify": "what object is in this location {}",
    }
)
"""Pool -> the one instruction used in evaluation by the released code; its choice for QA is ours, as above."""


def evaluation_instruction(pool: str, subject: str = "", fixed: Mapping[str, str] = EVALUATION) -> str:
    """Return the fixed evaluation instruction of a pool with its slot filled by `subject`."""
    return fixed[pool].format(subject)


def training_instruction(
    sample: Sample,
    rng: random.Random,
    pools: Mapping[str, tuple[str, ...]] = TRAINING,
    subject: str | None = None,
) -> str:
    """Return an instruction drawn with equal weight from the sample's pool.

    A sample without a pool (`meta["templates"]` absent: classification, whose datasets have one sentence
    each) gives its `instruction`; nothing is drawn from `rng` then.

    Args:
        sample: names its pool.
        rng: one choice is drawn from it.
        pools: pool -> instructions.
        subject: what fills the slot; None: `meta["subject"]`.
    """
    pool = sample.meta.get("templates")
    if pool is None:
        return sample.instruction
    return rng.choice(pools[pool]).format(sample.meta.get("subject", "") if subject is None else subject)


def classification_instruction(prompt: str, classes: Sequence[str]) -> str:
    """Return `<prompt>: a, b, or c?`, the form of Appendix C, with the classes in label order.

    Args:
        prompt: a sentence without end, such as "Which category does this CT image belong to".
        classes: two or more names.
    """
    if len(classes) == 2:
        return f"{prompt}: {classes[0]} or {classes[1]}?"
    return f"{prompt}: {', '.join(classes[:-1])}, or {classes[-1]}?"
