"""What the model's own code costs: the mixture beside a plain loop, a training step beside the bare modules.

    python benchmarks/model.py             about ten minutes on two cores
    python benchmarks/model.py --quick     the script itself; few repeats

Ratios of times that were measured in turn in one process: the median over pairs, with their quartiles. Written to
``benchmarks/model.md``.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unimed_model.building import config_without_files
from unimed_model.connector import CMoEConnector
from unimed_model.data.sample import IMAGE_TASKS
from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.presets import resolve
from unimed_model.settings import ConnectorSettings

OUT = Path(__file__).parent / "model.md"
GOALS = {"mixture": 1.0, "step": 1.05}


@dataclass(frozen=True)
class Pair:
    """Ours and the plain way, timed in turn."""

    name: str
    ratios: list[float]
    goal: float

    def line(self) -> str:
        """A row of the table."""
        low, middle, high = statistics.quantiles(self.ratios, n=4)
        met = "yes" if middle <= self.goal else "no"
        return f"| {self.name} | {middle:.3f} ({low:.3f} to {high:.3f}) | at most {self.goal:.2f} | {met} |"


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few repeats: to try the script, not to measure")
    repeats = 3 if parser.parse_args().quick else 25
    torch.manual_seed(0)
    pairs = [_mixture(*case, repeats) for case in _MIXTURES] + [_step(max(3, repeats // 3))]
    lines = [
        "# What the model's own code costs",
        "",
        "Made by `python benchmarks/model.py`: forward and backward, ours over the plain way, timed in turn in one",
        "process; median over pairs (quartiles). The plain mixture calls every expert on every token and sums the",
        "weighted outputs, as the released code does; the plain step calls the same modules without our class.",
        "",
        "| what | time, ours / plain | goal | met |",
        "|---|---|---|---|",
        *(pair.line() for pair in pairs),
    ]
    print("\n".join(lines))
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


_MIXTURES = [
    # width in, width out, tokens, router: the paper's 5632 -> 4096 for 256 tokens, at 3/16 of its widths
    (1056, 768, 256, "soft"),
    (1056, 768, 256, "sparse"),
    (1056, 768, 256, "hard"),
    (1056, 768, 256, "constant"),
    (512, 96, 32, "soft"),
    (512, 96, 32, "hard"),
    (128, 64, 32, "soft"),
    (64, 64, 16, "soft"),
]


def _mixture(width_in: int, width_out: int, tokens: int, router: str, repeats: int) -> Pair:
    settings = ConnectorSettings(router=router, router_hidden=64)  # type: ignore[arg-type]
    connector = CMoEConnector(width_in, width_out, settings)
    visual = torch.randn(4, tokens // 4, width_in)
    tasks = torch.tensor([1, 1, 1, 1]) % len(IMAGE_TASKS)  # one dataset a batch, as in training

    def plain() -> Tensor:
        task_tokens = None if connector.task_tokens is None else connector.task_tokens[tasks]
        weights = connector.router(visual, task_tokens, tasks)
        return sum(
            (weights[..., e, None] * expert(visual) for e, expert in enumerate(connector.experts)), torch.zeros(())
        )

    def ours() -> Tensor:
        return connector(visual, tasks).tokens

    name = f"mixture, {router}, {width_in} to {width_out}, {tokens} tokens"
    inner = max(1, 3_000_000 // (width_in * width_out * max(1, tokens // 32)))
    return Pair(name, _ratios(connector, ours, plain, repeats, inner), GOALS["mixture"])


def _step(repeats: int) -> Pair:
    """One step of the small preset's model, with weights drawn at random."""
    settings = resolve("small", ["llm.adapter.dropout=0"])
    model = UniMedForConditionalGeneration(config_without_files(settings)).train()
    config: Any = model.config
    ids = torch.randint(5, 1000, (4, config.image_tokens + 64))
    ids[:, 4 : 4 + config.image_tokens] = config.image_token_id
    batch = {"input_ids": ids, "labels": ids.clone(), "pixel_values": torch.randn(4, 3, 224, 224)}
    tasks = torch.tensor([0, 1, 2, 3])

    def plain() -> Tensor:
        with torch.no_grad():
            hidden = model.vision_model.model(pixel_values=batch["pixel_values"]).last_hidden_state[:, 1:]
        tokens = model.connector(hidden.reshape(4, -1, hidden.shape[-1] * 4), tasks).tokens
        words = model.language_model.get_input_embeddings()(ids)
        words[:, 4 : 4 + config.image_tokens] = tokens
        return model.language_model(inputs_embeds=words, labels=batch["labels"]).loss

    def ours() -> Tensor:
        return model(**batch, task_ids=tasks).loss

    return Pair("step of the small model, batch of 4", _ratios(model, ours, plain, repeats, 1), GOALS["step"])


def _ratios(
    module: nn.Module, ours: Callable[[], Tensor], plain: Callable[[], Tensor], repeats: int, inner: int
) -> list[float]:
    """Times of ``inner`` passes of ours over those of the plain way, in turn, after one of each."""
    torch.testing.assert_close(ours(), plain(), rtol=1e-4, atol=1e-5)
    ratios = []
    for repeat in range(repeats + 1):
        ways = (ours, plain) if repeat % 2 else (plain, ours)
        seconds = {way: _seconds(module, way, inner) for way in ways}
        ratios.append(seconds[ours] / seconds[plain])
    return ratios[1:]


def _seconds(module: nn.Module, way: Callable[[], Tensor], inner: int) -> float:
    start = time.perf_counter()
    for _ in range(inner):
        way().sum().backward()
        module.zero_grad(set_to_none=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
