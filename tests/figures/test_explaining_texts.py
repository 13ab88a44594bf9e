"""The texts beside every picture of made-up runs, and what holds of all of them."""

import re
from dataclasses import replace

import pytest

from figures.definitions import DEFINITIONS
from figures.explaining import difference, dynamics, features, interference, overview, routing
from figures.explaining.sentences import LONGEST
from figures.palette import GD_BOUND, INDEX_FLOOR
from figures.tables.runs import Material, read_material

from . import made_runs

MANY = {
    f"dataset_number_{n:02}_{'with_a_name_of_sixty_characters_' * 2}"[:60]: ("VQA", "REC", "CLS")[n % 3]
    for n in range(40)
}
KINDS = {
    *("interference", "intervals", "indexes", "breakdown", "scores", "routing", "tokens", "features", "separation"),
    *("dynamics", "difference", "forest"),
}


def material_of(folder, **options):
    mlp = made_runs.gradients(folder / "mlp", seed=1, **options)
    cmoe = made_runs.complete(folder / "cmoe", mlp, seed=2, **options)
    return read_material([mlp, cmoe, made_runs.ablation(folder / "2a.csv")])


@pytest.fixture(scope="module", name="usual")
def usual_runs(tmp_path_factory):
    return material_of(tmp_path_factory.mktemp("usual"))


@pytest.fixture(
    scope="module",
    name="material",
    params=[{}, {"tasks": {"only": "VQA"}}, {"known_tasks": False}, {"tasks": {"a": "VQA", "b": "odd task"}}],
    ids=["usual", "one dataset", "no tasks", "unknown task"],
)
def runs_of_many_kinds(request, tmp_path_factory):
    return material_of(tmp_path_factory.mktemp("runs"), **request.param)


def told(material):
    return [explanation for _, explanation in overview.explanations(material)]


def texts(explanation):
    return [
        explanation.title,
        explanation.reading,
        explanation.finding or "",
        explanation.caption,
        *explanation.warnings,
    ]


def sentences(text):
    return re.findall(r"[.!?](?:\s|$)", text)


def check(material):
    for each in told(material):
        assert len(sentences(each.reading)) == 2, each.reading
        assert each.reading.endswith(".")
        assert each.title
        assert each.caption.endswith(".")
        for text in texts(each):
            assert not re.search(r"\b(nan|NaN|inf|None)\b|  |\{|\}|\.\.|<NA>", text), text
            assert not re.search(r"(?<![\w.])-\d", text), f"a hyphen for a minus: {text}"
        if each.finding is not None:
            assert each.finding.endswith(".")
            assert each.finding[0].isupper()
        for warning in each.warnings:
            assert warning.endswith(".")


def test_every_kind_of_picture_has_its_text(usual):
    assert {kind for kind, _ in overview.explanations(usual)} == KINDS


def test_every_text_is_whole(material):
    check(material)


def test_forty_datasets_with_names_of_sixty_characters(tmp_path):
    mlp = made_runs.gradients(tmp_path / "mlp", tasks=MANY, seed=1, batches=3)
    cmoe = tmp_path / "cmoe"
    made_runs.routing(cmoe, tasks=MANY, checkpoints=("final",))
    made_runs.dynamics(cmoe, tasks=MANY, steps=(0, 100))
    made_runs.difference(cmoe, mlp, tasks=MANY)
    material = read_material([mlp, cmoe])
    check(material)
    for each in told(material):
        assert len(each.finding or "") <= 1.2 * LONGEST, each.finding
        for warning in each.warnings:
            assert len(warning) <= 600


def test_captions_hold_the_facts(usual):
    captions = {kind: each.caption for kind, each in overview.explanations(usual)}
    facts = {
        "interference": [
            "8 batches per dataset of 4 samples each",
            "estimator ratio_of_means",
            "pubmedqa",
            "connector.*",
        ],
        "indexes": ["95% percentile bootstrap over batches (60 resamples)", "mlp, cmoe"],
        "routing": [
            "after warm-up (step 0), final (step 1)",
            "40 samples per dataset",
            "640 tokens",
            "1,000 resamples",
        ],
        "features": ["72 of 72 samples drawn", "perplexity 20", "seeds 0, 1, 2", "50 PCA components"],
        "separation": ["neighbour overlap", "3 pairs of seeds"],
        "dynamics": ["cmoe"],
        "difference": ["paired", "seed 0", "8 batches per dataset"],
        "forest": ["3 seeds", "scores as in: paper"],
        "scores": ["24 parameters", "60 resamples"],
    }
    for kind, wanted in facts.items():
        for fact in wanted:
            assert fact in captions[kind], (kind, fact)


def test_the_overview_has_every_finding_once_with_its_kind(usual):
    found = overview.findings(usual)
    assert len(found) == len(set(found)) >= 8
    assert {kind for kind, _ in found} <= KINDS
    assert [text for _, text in found] == [each.finding for each in told(usual) if each.finding is not None]


def test_the_overview_has_every_warning_once(usual):
    warnings = overview.warnings(usual)
    assert len(warnings) == len(set(warnings))
    assert any("only 8 batches per dataset" in text for text in warnings)
    assert any("dead" in text for text in warnings)
    assert set(warnings) == {text for each in told(usual) for text in each.warnings}


def test_nothing_measured_is_nothing_told():
    nothing = Material((), (), ())
    assert overview.findings(nothing) == overview.warnings(nothing) == []


def shuffled(table):
    return None if table is None else table.sample(frac=1, random_state=3).reset_index(drop=True)


def test_the_order_of_rows_changes_no_finding(usual):
    mixed = []
    for run in usual.runs:
        levels = {
            level: replace(
                tables,
                index=tables.index.sample(frac=1, random_state=3),
                **{name: shuffled(getattr(tables, name)) for name in ("gd_intervals", "gm_intervals", "index_blocks")},
            )
            for level, tables in run.gradients.levels.items()
        }
        parts = {"gradients": replace(run.gradients, levels=levels)}
        if run.routing is not None:
            tables = ("weights", "load", "measures", "information", "divergence", "switched_off")
            parts["routing"] = replace(run.routing, **{name: shuffled(getattr(run.routing, name)) for name in tables})
            parts["features"] = replace(
                run.features, separation=shuffled(run.features.separation), alignment=shuffled(run.features.alignment)
            )
            by_level = ("index", "gd", "gm")
            parts["dynamics"] = replace(
                run.dynamics,
                **{name: {k: shuffled(t) for k, t in getattr(run.dynamics, name).items()} for name in by_level},
            )
        mixed.append(replace(run, **parts))
    differences = [
        replace(
            each,
            **{
                name: {k: shuffled(t) for k, t in getattr(each, name).items()}
                for name in ("gd", "gm", "index", "scores")
            },
        )
        for each in usual.differences
    ]
    ablations = [replace(each, deltas=shuffled(each.deltas)) for each in usual.ablations]
    material = Material(tuple(mixed), tuple(differences), tuple(ablations))
    assert overview.findings(material) == overview.findings(usual)


def test_tables_that_a_run_lacks_are_passed_over(usual):
    runs = []
    for run in usual.runs:
        levels = {
            level: replace(
                tables,
                index=tables.index[["batches", "index"]],
                gd_intervals=tables.gd_intervals[["row", "column", "value"]],
                gm_intervals=tables.gm_intervals[["row", "column", "value"]],
                scores=None,
                score_blocks=None,
                index_blocks=None,
            )
            for level, tables in run.gradients.levels.items()
        }
        parts = {"gradients": replace(run.gradients, levels=levels, blocks=None, undefined={})}
        if run.routing is not None:
            gone = ("information", "divergence", "switched_off", "tokens")
            parts["routing"] = replace(run.routing, **dict.fromkeys(gone))
            parts["features"] = replace(run.features, separation=None, alignment=None, stability=None)
            parts["dynamics"] = replace(run.dynamics, routing=None, loss=None, gd={})
        runs.append(replace(run, **parts))
    material = Material(tuple(runs), (), ())
    check(material)
    kinds = {kind for kind, _ in overview.findings(material)}
    assert kinds.isdisjoint({"interference", "intervals", "indexes", "scores", "breakdown", "separation", "difference"})


def test_where_every_interval_spans_its_null_value_nothing_is_found(usual):
    run = next(run for run in usual.runs if run.routing is not None)

    def spanning(table, value, null, prefix=""):
        table = table.copy()
        for kind in ("", "simultaneous_"):
            if f"{prefix}{kind}low" in table:
                table[f"{prefix}{kind}low"], table[f"{prefix}{kind}high"] = null - 1, null + 1
        return table.assign(**({f"{prefix}p_value": 1.0} if f"{prefix}p_value" in table else {}))

    levels = {
        level: replace(
            tables,
            gd_intervals=spanning(tables.gd_intervals, "value", 0),
            gm_intervals=spanning(tables.gm_intervals, "value", 1),
            index=spanning(tables.index, "index", 1, "index_"),
            scores=spanning(tables.scores, "share", 0.5),
            score_blocks=spanning(tables.score_blocks, "share", 0.5),
            index_blocks=spanning(tables.index_blocks, "index", 1),
        )
        for level, tables in run.gradients.levels.items()
    }
    tables = run.routing
    nothing = replace(
        run,
        gradients=replace(run.gradients, levels=levels),
        routing=replace(
            tables,
            weights=spanning(tables.weights, "weight", 0.2),
            information=tables.information.assign(p_value=0.5),
            switched_off=spanning(tables.switched_off, "change", 0),
        ),
        features=replace(
            run.features,
            separation=spanning(run.features.separation, "value", 0.5),
            alignment=spanning(run.features.alignment, "value", 0.5),
        ),
        dynamics=replace(
            run.dynamics,
            index={level: spanning(table, "index", 1, "index_") for level, table in run.dynamics.index.items()},
            gd={level: spanning(table, "value", 0) for level, table in run.dynamics.gd.items()},
        ),
    )
    unsure = [
        replace(
            each,
            **{
                name: {level: table.assign(verdict="not sure") for level, table in getattr(each, name).items()}
                for name in ("gd", "gm", "index")
            },
            scores={level: spanning(table, "difference", 0) for level, table in each.scores.items()},
        )
        for each in usual.differences
    ]
    ablations = [replace(each, deltas=spanning(each.deltas, "value", 0)) for each in usual.ablations]
    assert overview.findings(Material((nothing,), tuple(unsure), tuple(ablations))) == []


def test_a_run_without_what_a_picture_needs_is_a_programming_error(usual):
    mlp = usual.runs[0]
    for explain in (
        lambda: routing.weights(mlp, "r"),
        lambda: features.alignment([mlp]),
        lambda: dynamics.routing(mlp),
    ):
        with pytest.raises(ValueError, match="Run mlp has no"):
            explain()


def test_an_ablation_whose_arms_have_no_intervals_counts_them(usual):
    table = usual.ablations[0]
    bare = replace(table, deltas=table.deltas.assign(low=float("nan"), high=float("nan")))
    material = Material((), (), (bare,))
    check(material)
    assert overview.findings(material) == []
    assert any("have no interval" in text for text in overview.warnings(material))


def test_captions_say_where_colours_and_bars_end(usual):
    runs = [run.gradients for run in usual.runs]
    assert f"colours end at ±{GD_BOUND:g}" in interference.heatmap(runs[0], "dataset").caption
    assert INDEX_FLOOR == -1
    assert "below −1 is cut there and ends in an arrow" in interference.indexes(runs).caption


def test_a_picture_of_one_measure_speaks_of_that_one_alone(usual):
    run = usual.runs[0].gradients
    gd, gm, both = (interference.intervals(run, "dataset", measure) for measure in ("GD", "GM", ""))
    assert "GM" not in f"{gd.title}{gd.reading}{gd.caption}{gd.finding}"
    assert "GD" not in f"{gm.title}{gm.reading}{gm.caption}{gm.finding}"
    assert gm.finding == both.finding


def test_features_name_their_intervals_and_the_seed_that_is_drawn(usual):
    run = usual.runs[1]
    manifest = run.features.manifest | {"interval": "jackknife over samples within datasets", "seeds": [7, 8]}
    run = replace(run, features=replace(run.features, manifest=manifest))
    for text in (features.separation([run]).caption, features.alignment([run]).caption):
        assert "95% intervals by jackknife over samples within datasets, leaving out one at a time" in text
        assert "bootstrap" not in text
    assert "seeds 7, 8; drawn is seed 7 where no other is chosen" in features.embedding([run], 2).caption


def test_entropies_load_and_information_have_texts_of_their_own(usual):
    run = usual.runs[1]
    found = [explain(run, "connector.router") for explain in (routing.measures, routing.load, routing.information)]
    assert len({each.title for each in found}) == len({each.reading for each in found}) == 3
    assert len({each.caption for each in found}) == 3


def test_intervals_of_experts_that_are_switched_off_come_from_batches(usual):
    run = usual.runs[1]
    assert "bootstrap over batches within datasets" in routing.switched_off(run, "connector.router").caption
    assert "bootstrap over samples within datasets" in routing.weights(run, "connector.router").caption


def test_scores_have_no_denominator_to_warn_of(usual):
    tables = usual.differences[0]
    name = tables.index["dataset"]["name"].iloc[0]
    doubtful = replace(tables, manifest={**tables.manifest, "sign_uncertain": [name]})
    assert any(f"denominator of {name}" in text for text in difference.maps(doubtful, "dataset").warnings)
    assert not any("denominator" in text for text in difference.scores(doubtful, "dataset").warnings)


def test_definitions_are_complete_and_plain():
    assert len({each.name for each in DEFINITIONS}) == len(DEFINITIONS)
    for each in DEFINITIONS:
        assert each.text.endswith(".")
        assert each.name
        assert each.span
        assert each.source
        assert not re.search(r"[\\$<>{}]|None", f"{each.formula}{each.text}{each.span}")
    assert {"GDᵢⱼ = E(Uᵢⱼ / Uᵢᵢ)", "Iᵢ = Σⱼ GDᵢⱼ · GMᵢⱼ"} <= {each.formula for each in DEFINITIONS}
    sources = " ".join(each.source for each in DEFINITIONS)
    for equation in ("Equation 2", "Equation 3", "Equation 4", "Equation 5"):
        assert equation in sources
