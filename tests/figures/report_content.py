"""A report read back: its pictures and tables, and figures with references looked up as the page's script does."""

import json
from html.parser import HTMLParser

import pandas as pd


class Page(HTMLParser):
    """Scripts, text and attributes of a page.

    Attributes:
        scripts: (attributes, content) of every script.
        tags: (name, attributes) of every element, in order.
        text: all text outside scripts and styles.
    """

    def __init__(self, path):
        super().__init__()
        self.scripts, self.tags, self.text, self._inside = [], [], "", None
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        data = [(dict(attributes), content) for attributes, content in self.scripts]
        parsed = [(a, json.loads(c)) for a, c in data if a.get("type") == "application/json"]
        self.tables = [_table(raw) for raw in next(c for a, c in parsed if a.get("id") == "tables")]
        self.parts = next(c for a, c in parsed if a.get("id") == "parts")
        self.pictures = {content["name"]: content for a, content in parsed if a.get("class") == "content"}

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            if tag == "script":
                self.scripts.append([attrs, ""])

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1][1] += data
        elif self._inside is None:
            self.text += data

    def view(self, name, *at):
        """The view of a picture whose choices begin as given."""
        return next(view for view in self.pictures[name]["views"] if view["at"][: len(at)] == list(at))

    def shown(self, name, *at):
        """The rows of the table below a view."""
        view = self.view(name, *at)
        return self.tables[view["table"]].iloc[slice(*view["rows"])]

    def figure(self, name, *at):
        """A view's figure, references looked up."""
        view = self.view(name, *at)
        figure = self.whole(self.pictures[name]["figures"][view["figure"]])
        return look(figure, self.tables[view["table"]], self.pictures[name]["images"])

    def whole(self, part):
        """A figure with the parts that it shares with others."""
        if isinstance(part, list):
            return [self.whole(item) for item in part]
        if not isinstance(part, dict):
            return part
        if "$part" in part:
            return self.whole(self.parts[part["$part"]])
        return {key: self.whole(value) for key, value in part.items()}


def look(part, table, images):
    if isinstance(part, list):
        return [look(item, table, images) for item in part]
    if not isinstance(part, dict):
        return part
    if "$column" in part:
        rows = part["rows"]
        if isinstance(rows, list):
            return table[part["$column"]].iloc[slice(*rows)].tolist()
        return [None if row is None else table[part["$column"]].iloc[row] for row in rows["at"]]
    if "$grid" in part:
        return _rows(look(part["$grid"], table, images), part["width"])
    if "$zip" in part:
        columns = [look(item, table, images) for item in part["$zip"]]
        return _rows([list(row) for row in zip(*columns, strict=True)], part.get("width"))
    if "$ends" in part:
        low, high = (look(item, table, images) for item in part["$ends"])
        return [place for pair in zip(low, high, strict=True) for place in (*pair, None)]
    if "$image" in part:
        return images[part["$image"]]
    return {key: look(value, table, images) for key, value in part.items()}


def _rows(values, width):
    return [values[start : start + width] for start in range(0, len(values), width)] if width else values


def _table(raw):
    columns = {}
    for name, values in zip(raw["columns"], raw["values"], strict=True):
        if isinstance(values, dict) and "runs" in values:
            pairs = zip(values["runs"][::2], values["runs"][1::2], strict=True)
            values = values | {"codes": [code for code, length in pairs for _ in range(length)]}
        if isinstance(values, dict):
            values = [None if code < 0 else values["distinct"][code] for code in values["codes"]]
        assert len(values) == raw["length"]
        columns[name] = values
    return pd.DataFrame(columns)
