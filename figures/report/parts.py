"""Parts that many figures have in common, such as the labels of an axis, held once for the whole page."""

from typing import Any

# A reference is about 14 characters; what is hardly longer is not worth one.
SHORTEST = 40


class Parts:
    """What figures are made of: equal parts are one, whichever figures they are in."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}
        self._nodes: list[Any] = []
        self._sizes: list[int] = []
        self._uses: list[int] = []

    def add(self, content: Any) -> int:
        """Take in a figure.

        Returns:
            Its number, for ``resolve``.
        """
        place = self._intern(content)
        self._uses[place] += 1
        return place

    def resolve(self, places: list[int]) -> tuple[list[Any], list[Any]]:
        """Figures with ``{"$part": number}`` for every part that is used more than once, and these parts.

        Args:
            places: of the figures.
        """
        written: dict[int, int] = {}
        parts: list[Any] = []

        def show(place: int) -> Any:
            if self._sizes[place] < SHORTEST or self._uses[place] < 2:
                return spell(place)
            if place not in written:
                written[place] = len(parts)
                parts.append(None)
                parts[written[place]] = spell(place)
            return {"$part": written[place]}

        def spell(place: int) -> Any:
            node = self._nodes[place]
            if isinstance(node, dict):
                return {key: show(child) for key, child in node.items()}
            return [show(child) for child in node] if isinstance(node, tuple) else node[0]

        return [show(place) for place in places], parts

    def _intern(self, content: Any) -> int:
        if isinstance(content, dict):
            node: Any = {str(key): self._intern(value) for key, value in content.items()}
            key: Any = ("object", *node.items())
            size = sum(len(name) + 4 + self._sizes[child] for name, child in node.items())
        elif isinstance(content, list | tuple):
            node = tuple(self._intern(value) for value in content)
            key, size = ("list", *node), sum(self._sizes[child] + 1 for child in node)
        else:
            # 1, 1.0 and True are equal and not the same.
            node, key, size = [content], (type(content), content), len(str(content)) + 2
        if key not in self._places:
            self._places[key] = len(self._nodes)
            self._nodes.append(node)
            self._sizes.append(size)
            self._uses.append(0)
            for child in node.values() if isinstance(node, dict) else node if isinstance(node, tuple) else ():
                self._uses[child] += 1
        return self._places[key]
