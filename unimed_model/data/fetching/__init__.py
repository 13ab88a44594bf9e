"""``unimed-data fetch``: a published dataset into a data root, or, where it is not free to fetch, the steps to it.

``recipes`` says what is fetched from where; ``obtaining`` does it; ``archives`` unpacks.
"""

from .obtaining import fetch

__all__ = ["fetch"]
