"""A model whose tasks conflict by design, so that every measure of interference is known before it is taken.

One trunk ``W`` (3 x inputs, at zero) under one head ``h`` per dataset. A batch is a single sample ``(x, y)`` with the
loss ``(h W x - y)^2 / 2``, whose gradient at ``W = 0`` is ``-y h x^T``. All heads weigh alike, so that a dataset's
targets and inputs alone say how it pulls:

* ``base``; ``copy``, which is the same; ``negated``, with its targets negated; ``scaled``, with its targets times 3;
* ``elsewhere``, whose input is another coordinate.

With noise ``nu`` every batch also has an input of its own, of size ``nu``, on a coordinate that no other batch has: the
gradients' noise, which is orthogonal to all there is. Gaussian noise is spread over all these coordinates instead.

Between input and trunk stand a module that passes its features on (``passed``), and a router of three experts that do
the same, each of weight 1/3.

``tugofwar gradients --setup tests/conflict_study.py:noise_free --params 'shared.*' --out FOLDER``
"""

import torch
from torch import nn

BATCHES = 10
NOISE = 2.0
HEAD = (1.0, 2.0, -1.0)
TARGETS = {"base": 1.0, "copy": 1.0, "negated": -1.0, "scaled": 3.0, "elsewhere": 1.0}
TURNED = TARGETS | {"copy": -1.0}
TASKS = {"base": "up", "copy": "up", "negated": "down", "scaled": "strongly up", "elsewhere": "apart"}
COORDINATES = 2
LONG = "a_dataset_whose_name_has_sixty_characters_and_a_number_"


class Router(nn.Module):
    """Equal weights for three experts, (samples, 3)."""

    def __init__(self, inputs):
        super().__init__()
        self.logits = nn.Linear(inputs, 3, bias=False, dtype=torch.float64)
        nn.init.zeros_(self.logits.weight)

    def forward(self, x):
        return self.logits(x).softmax(dim=-1)


class Conflict(nn.Module):
    """A trunk that all datasets share, and a head for each."""

    def __init__(self, inputs, heads):
        super().__init__()
        self.passed = nn.Identity()
        self.router = Router(inputs)
        self.shared = nn.Linear(inputs, len(HEAD), bias=False, dtype=torch.float64)
        self.heads = nn.ModuleList(nn.Linear(len(HEAD), 1, bias=False, dtype=torch.float64) for _ in range(heads))
        # What the targets of each head are multiplied by; training may change it, as when data go wrong.
        self.register_buffer("signs", torch.ones(heads, dtype=torch.float64))
        nn.init.zeros_(self.shared.weight)
        for head in self.heads:
            head.weight.data.copy_(torch.tensor([HEAD], dtype=torch.float64))

    def forward(self, x, y, head):
        """Half the squared error of the samples' own heads, ``x`` of shape (samples, inputs)."""
        x = self.passed(x)
        shared = self.shared(x * self.router(x).sum(dim=-1, keepdim=True))
        found = torch.stack([self.heads[int(which)](row)[0] for which, row in zip(head, shared, strict=True)])
        return {"loss": ((found - self.signs[head] * y) ** 2).mean() / 2}


def samples(targets, noise=0.0, gaussian=False):
    """Dataset -> samples; the one called ``elsewhere`` has its input on another coordinate."""
    own = len(targets) * BATCHES
    generator = torch.Generator().manual_seed(0)
    # Rows are samples: those of a dataset are its own coordinates, or a draw over all of them.
    spread = torch.randn(own, own, dtype=torch.float64, generator=generator) / own**0.5 if gaussian else torch.eye(own)
    made = {}
    for head, (name, target) in enumerate(targets.items()):
        x = torch.zeros(BATCHES, COORDINATES + own, dtype=torch.float64)
        x[:, int(name == "elsewhere")] = 1.0
        x[:, COORDINATES:] = noise * spread[head * BATCHES : (head + 1) * BATCHES]
        made[name] = [{"x": row, "y": torch.tensor(target, dtype=torch.float64), "head": head} for row in x]
    return made


def batched(made):
    """Dataset -> batches of one sample each."""
    return {
        name: [{"x": one["x"][None], "y": one["y"][None], "head": torch.tensor([one["head"]])} for one in each]
        for name, each in made.items()
    }


def study(targets=TARGETS, noise=0.0, tasks=TASKS, gaussian=False):
    """What a setup function returns."""
    model = Conflict(COORDINATES + len(targets) * BATCHES, len(targets))
    known = {name: tasks[name] for name in targets} if tasks else {}
    return {"model": model, "datasets": batched(samples(targets, noise, gaussian)), "tasks": known}


def noise_free():
    return study()


def noisy():
    return study(noise=NOISE)


def turned():
    """The copy is negated, too. No tasks: one that pooled it with its opposite would have no direction at all."""
    return study(TURNED, NOISE, tasks=None)


def gaussian():
    return study(noise=NOISE / 4, gaussian=True)


def gaussian_turned():
    return study(TURNED, NOISE / 4, gaussian=True)


def torn():
    """Every shared parameter that has a gradient is pulled both ways alike."""
    return study({name: TARGETS[name] for name in ("base", "negated")})


def agreeing():
    """No shared parameter is pulled both ways."""
    return study({name: TARGETS[name] for name in ("base", "copy")})


def alone():
    return study({"base": 1.0}, NOISE)


def forty():
    """Forty datasets with names of sixty characters; every other one pulls the other way."""
    targets = {f"{LONG}{number:05d}": 1.0 - 2 * (number % 2) for number in range(40)}
    return study(targets, NOISE, {name: f"task {number % 4}" for number, name in enumerate(targets)})


def without_tasks():
    return study(noise=NOISE, tasks=None)
