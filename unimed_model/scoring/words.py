"""Texts as words: what the paper's equations count, and what the released scripts make of a text first."""

import re
import string
from functools import lru_cache

# ----------------------------------------------------------------------------------------------- paper


@lru_cache(maxsize=4096)
def words(text: str) -> tuple[str, ...]:
    """Return the words of a text for the equations of Appendix D, which leave open what a word is.

    Lower case, split at blanks, punctuation around a word removed (`lung.` is `lung`; `x-ray` and `1.5` stay whole).
    A text of punctuation alone keeps it: an answer may be a sign.
    """
    pieces = tuple(text.lower().split())
    bare = tuple(word for piece in pieces if (word := piece.strip(string.punctuation)))
    return bare or pieces


# -------------------------------------------------------------------------------------------- released

_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
_NUMBERS["none"] = "0"
_ARTICLES = frozenset(("a", "an", "the"))
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_STOPS_REMOVED = 32  # the released script passes re.UNICODE, which is 32, where the number of replacements belongs
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")

_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


_MENDED = {slip: word for word in _CONTRACTIONS.split() for slip in _without_one_apostrophe(word)}
_MENDED["somebody'd"] = "somebodyd"


@lru_cache(maxsize=4096)
def normalise(text: str) -> str:
    """Return a text as the released scripts compare it: the normaliser of the VQA v2 evaluation, with its slips.

    Each mark of punctuation is removed where it stands beside a blank anywhere in the text, or where any digits are
    joined by a comma, else replaced by a blank; full stops go unless a digit follows (the first 32 of them); then lower
    case, number words as digits (`none` as 0), articles dropped, apostrophes of contractions put back.
    """
    joined = _DIGIT_COMMA_DIGIT.search(text) is not None
    changed = text
    for mark in _MARKS:
        beside_a_blank = f"{mark} " in text or f" {mark}" in text
        changed = changed.replace(mark, "" if joined or beside_a_blank else " ")
    changed = _FULL_STOP.sub("", changed, count=_STOPS_REMOVED)
    found = (_NUMBERS.get(word, word) for word in changed.lower().split())
    return " ".join(_MENDED.get(word, word) for word in found if word not in _ARTICLES)


def generated(text: str) -> str:
    """Return what the released scripts keep of generated text: lower case, unknown tokens and outer blanks removed."""
    return text.lower().replace("<unk>", "").strip()
