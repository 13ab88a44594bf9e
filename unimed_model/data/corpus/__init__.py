"""The sample corpus: real brain images that ship inside ``nilearn``, written in the published raw layouts.

It lets every command of this project run within minutes, without any download. It is one average brain, so
nothing that a model scores on it says anything about patients.
"""

from .writing import write_sample_corpus

__all__ = ["write_sample_corpus"]
