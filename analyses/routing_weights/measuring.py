"""How does the router divide the work between experts? (Fig. 4c of arXiv 2409.17508)

The tables of every checkpoint of a trained run, or of one's own model, in one folder; see docs/formats.md, "Routing
weights". Batches are those that ``tugofwar gradients`` draws with the same seed and batch size.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from analyses import tables
from analyses.routing_weights.checkpoints import Checkpoint
from analyses.routing_weights.images import ROUTER, Picture, chosen_pictures, save_pictures, token_table
from analyses.routing_weights.sources import Draw, EncodedBatches, OwnModel, Runs
from analyses.routing_weights.tables import LEVEL, RESAMPLES, Frames, routing_tables
from tugofwar.engine.fingerprint import model_digest
from tugofwar.errors import UserError
from tugofwar.folders import check_replaceable, replacing
from tugofwar.routing.capture import find_routers
from tugofwar.routing.outputs import LOGITS
from tugofwar.routing.recorder import RouterRecord, RoutingRecord, record_routing
from tugofwar.storage import MANIFEST, format_of, strict_json
from tugofwar.study import Study
from unimed_model.data.progress import reading_quietly
from unimed_model.lora_moe import LoraMoELinear
from unimed_model.modeling import UniMedForConditionalGeneration
from unimed_model.probing import ProbeBatches

KIND = "routing measurement"
FORMAT_VERSION = 1
TABLES = ("weights", "load", "measures", "information", "divergence", "switched_off", "tokens")


@dataclass(frozen=True)
class Settings:
    """How to look at routers; each is an option of ``tugofwar routing`` of the same name.

    Attributes:
        router: glob of the routers' module names.
        batches: batches per dataset, at least 2.
        datasets: names of the datasets; None for all that there are.
        seed: of the draw of batches, of the intervals, the null and the choice of images.
        top_k: of routers that give logits, how many experts the model keeps; None for all.
        switching: also measure the loss without each expert.
        quiet: no progress bar.
    """

    router: str = ROUTER
    batches: int = 25
    datasets: Sequence[str] | None = None
    seed: int = 0
    top_k: int | None = None
    switching: bool = True
    quiet: bool = False

    def check(self) -> None:
        """Raise a UserError for settings out of range."""
        if self.batches < 2:
            raise UserError(f"--batches is {self.batches}, but an interval needs at least 2 per dataset.")
        if self.top_k is not None and self.top_k < 1:
            raise UserError(f"--top-k is {self.top_k}; a token needs at least 1 expert.")


@dataclass(frozen=True)
class Routing:
    """What was found: the manifest, and the tables by name."""

    manifest: dict[str, Any]
    tables: Frames


@dataclass(frozen=True)
class _Probed:
    """One checkpoint: what its routers did, its tables, and what the manifest says of it."""

    checkpoint: Checkpoint
    record: RoutingRecord
    frames: Frames
    pictures: list[Picture]
    metadata: dict[str, Any]


def measure_routing(source: Runs | OwnModel, out: Path, settings: Settings) -> Routing:
    """Look at the routers of every checkpoint and write the tables into ``out``, all or nothing.

    Args:
        source: the models and their batches.
        out: output folder; earlier output of this command there is replaced.
        settings: how to look.

    Raises:
        UserError: a path that is missing, settings out of range, a model without such a router, or checkpoints whose
            routers differ.
    """
    settings.check()
    check_replaceable(out, KIND)
    probed = []
    draw = Draw(settings.batches, settings.datasets, settings.seed)
    with reading_quietly(settings.quiet), closing(source.studies(draw)) as studies:
        for checkpoint, study in studies:
            probed.append(_probe(checkpoint, study, settings))
            _require_same_routers(probed[0], probed[-1])
            del study  # its model, before the next one is opened
    found = Routing(_manifest(probed, settings), _joined(probed))
    for name, frame in found.tables.items():
        tables.check_complete(f"{name}.csv", frame)
    with replacing(out, KIND) as folder:
        for name, frame in found.tables.items():
            frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")
        if probed[-1].pictures:
            save_pictures(probed[-1].pictures, folder / "images")
        (folder / MANIFEST).write_text(strict_json(found.manifest), encoding="utf-8")
    return found


def _probe(checkpoint: Checkpoint, study: Study, settings: Settings) -> _Probed:
    top_k, datasets = settings.top_k, study.datasets
    if isinstance(study.model, UniMedForConditionalGeneration):
        top_k = _top_k_of(study.model, checkpoint, settings)
        datasets = {
            name: EncodedBatches(study.model, source) if isinstance(source, ProbeBatches) else source
            for name, source in study.datasets.items()
        }
    record = record_routing(
        study.model,
        datasets,
        settings.router,
        settings.batches,
        study.loss,
        settings.seed,
        not settings.quiet,
        study.tasks,
        top_k=top_k,
        switching=settings.switching,
        # several questions about one image are hardly more evidence than one of them
        units={name: source.images for name, source in study.datasets.items() if isinstance(source, ProbeBatches)},
    )
    if settings.top_k is not None and all(router.gives != LOGITS for router in record.routers):
        router = record.routers[0]
        raise UserError(
            f"--top-k is for routers that give logits, but {router.name} gives {router.gives}; leave it out."
        )
    frames = routing_tables(record, settings.seed)
    pictures = _pictures(study, record, settings.seed)
    if pictures:
        frames["tokens"] = token_table(study.model, pictures, study.tasks, settings.seed)
    metadata = {"weights_sha256": model_digest(study.model), **study.metadata, "top_k": top_k}
    return _Probed(checkpoint, record, frames, pictures, metadata)


def _top_k_of(model: UniMedForConditionalGeneration, checkpoint: Checkpoint, settings: Settings) -> int | None:
    """How many experts a Uni-Med's routers keep of their logits; its connector's router gives weights itself.

    Raises:
        UserError: a module that is none of its routers.
    """
    lora = {
        f"{name}.lora_router": module for name, module in model.named_modules() if isinstance(module, LoraMoELinear)
    }
    routers = [*_connector_router(model), *lora]
    if not routers:
        raise UserError(
            f"The model in {checkpoint.folder} has no router: its connector is no mixture of experts, and its LLM has "
            "no LoRA-MoE; train one with connector.kind=cmoe."
        )
    for name in find_routers(model, settings.router):
        if name not in routers:
            shown = ", ".join(routers[:3])
            raise UserError(f"--router {settings.router} names {name}, which is no router; those of this run: {shown}.")
    kept = {module.settings.top_k for module in lora.values()}
    return settings.top_k if settings.top_k is not None or not kept else kept.pop()


def _connector_router(model: nn.Module) -> list[str]:
    return [ROUTER] if any(name == ROUTER for name, _ in model.named_modules()) else []


def _pictures(study: Study, record: RoutingRecord, seed: int) -> list[Picture]:
    """Images with known places of their tokens: those that reach the connector of a Uni-Med."""
    reached = {name for router in record.routers if router.name == ROUTER for name in router.samples}
    batches = {
        name: source for name, source in study.datasets.items() if name in reached and isinstance(source, ProbeBatches)
    }
    return chosen_pictures(batches, seed) if isinstance(study.model, UniMedForConditionalGeneration) else []


def _require_same_routers(first: _Probed, other: _Probed) -> None:
    ours, theirs = ({router.name: router.experts for router in each.record.routers} for each in (first, other))
    if theirs != ours:
        raise UserError(
            f"The checkpoints have different routers: {first.checkpoint.name} has {_named(ours)}, "
            f"{other.checkpoint.name} has {_named(theirs)}; look at them one at a time."
        )


def _named(experts: dict[str, int]) -> str:
    shown = [f"{name} with {count} experts" for name, count in list(experts.items())[:2]]
    return ", ".join(shown) + (f" and {len(experts) - 2} more" if len(experts) > 2 else "")


def _joined(probed: Sequence[_Probed]) -> Frames:
    found: Frames = {}
    for name in TABLES:
        parts = []
        for each in probed:
            if name in each.frames:
                frame = each.frames[name].copy()
                frame.insert(0, "checkpoint", each.checkpoint.name)
                parts.append(frame)
        if parts:
            found[name] = pd.concat(parts, ignore_index=True)
    return found


def _manifest(probed: Sequence[_Probed], settings: Settings) -> dict[str, Any]:
    last = probed[-1]
    optional = ("batch_size", "with_replacement", "skip_missing", "missing_images", "setup", "setup_sha256", "versions")
    known = {key: last.metadata[key] for key in optional if key in last.metadata}
    touched = [name for name in last.record.losses if name not in last.record.untouched]
    return {
        "format": format_of(KIND),
        "format_version": FORMAT_VERSION,
        "checkpoints": [_checkpoint_entry(each) for each in probed],
        "routers": [_router_entry(router, last.metadata["top_k"], settings) for router in last.record.routers],
        "router": settings.router,
        "datasets": touched,
        "untouched": list(last.record.untouched),
        "tasks": dict(last.record.tasks),
        "samples": {
            name: max(router.sizes[name] for router in last.record.routers if name in router.sizes) for name in touched
        },
        "units": {
            name: max(len(router.samples[name]) for router in last.record.routers if name in router.samples)
            for name in touched
        },
        "batches": settings.batches,
        "seed": settings.seed,
        "interval_level": LEVEL,
        "resamples": RESAMPLES,
        **known,
    }


def _checkpoint_entry(probed: _Probed) -> dict[str, Any]:
    checkpoint = probed.checkpoint
    step = {} if checkpoint.step is None else {"step": checkpoint.step}
    digest = {"weights_sha256": probed.metadata["weights_sha256"]}
    return {"name": checkpoint.name, "label": checkpoint.label, **step, **digest}


def _router_entry(router: RouterRecord, top_k: int | None, settings: Settings) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": router.name, "experts": router.experts, "gives": router.gives}
    if router.gives == LOGITS and top_k is not None:
        entry["top_k"] = top_k
    entry["tokens_counted"] = router.counted
    if settings.switching and not router.switchable:
        entry["not_switched_off"] = (
            "it has a single expert" if router.experts == 1 else "what the model reads of its output is not known"
        )
    return entry


def summary(found: Routing) -> dict[str, Any]:
    """The manifest's description and every table but that of single tokens, as JSON values.

    Returns:
        ``checkpoints``, ``routers``, ``untouched``, ``missing_images``, ``interval_level``, and ``tables``: name of
        each table to its rows, none where there is nothing to say.
    """
    manifest = found.manifest
    return {
        **{key: manifest[key] for key in ("checkpoints", "routers", "untouched", "interval_level")},
        "missing_images": manifest.get("missing_images", {}),
        "tables": {
            name: found.tables[name].to_dict(orient="records") if name in found.tables else []
            for name in TABLES
            if name != "tokens"
        },
    }
