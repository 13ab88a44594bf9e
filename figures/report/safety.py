"""Text from users' data made harmless: in JSON inside a page, and in labels of plotly, which reads some HTML."""

import html
import json
import math
from typing import Any

# Inside a script element only these could end it, open a comment, or break a line in old engines.
_UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def json_for_script(content: Any) -> str:
    """Strict JSON that may stand in a ``<script type="application/json">``, whatever text it holds.

    Numbers that JSON does not have (NaN, infinities) become null: the page shows them as undefined.
    """
    text = json.dumps(_finite(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in _UNSAFE.items():
        text = text.replace(character, escaped)
    return text


def plot_text(text: str) -> str:
    """Text as plotly shows it literally: its labels interpret tags and entities."""
    return html.escape(text, quote=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
