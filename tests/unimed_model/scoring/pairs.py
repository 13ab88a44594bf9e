"""Generated answers: 500 pairs of texts that share words, repeat them, and carry what normalising meets."""

import random

TYPED = """
    lung lungs left right the a an heart enlarged enlargement no yes none two ten 2 1,000 5.5 x-ray isnt don't
    clear clearly effusion pleural and/or (mild) cardiomegaly. normal, opacity; T1 <unk> is are of in
"""
WORDS = TYPED.split()


def text(source, longest=14):
    return " ".join(source.choices(WORDS, k=source.randint(0, longest)))


def shaken(reference, source):
    """A text with some of the reference's words, some doubled, some in another place."""
    kept = [word for word in reference.split() for _ in range(source.choice((0, 1, 1, 1, 2)))]
    added = source.choices(WORDS, k=source.randint(0, 3))
    together = kept + added
    if source.random() < 0.3:
        source.shuffle(together)
    return " ".join(together)


def pairs(count=500, seed=0, longest=14):
    """(prediction, reference) pairs."""
    source = random.Random(seed)
    references = [text(source, longest) for _ in range(count)]
    return [(shaken(reference, source) if source.random() < 0.9 else reference, reference) for reference in references]


PAIRS = pairs()
