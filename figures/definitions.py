"""What every number in pictures and tables is; equations are numbered as in the paper, arXiv 2409.17508."""

from dataclasses import dataclass

BEYOND = "beyond the paper"


@dataclass(frozen=True)
class Definition:
    """One number, in plain Unicode text.

    Attributes:
        name: what it is called.
        formula: its symbol, as tables and pictures have it, or its formula; empty where words say it all.
        text: what it is.
        source: equation or section of the paper, or that it is not in it.
        span: range and unit.
    """

    name: str
    formula: str
    text: str
    source: str
    span: str


GRADIENTS = (
    Definition(
        "gradient of a batch",
        "gₐ = ∇θ L(batch a)",
        "Gradient of the mean loss of one batch of one dataset by the selected shared parameters θ.",
        "Section 3.1",
        "a vector, as long as there are parameters",
    ),
    Definition(
        "effect on the loss",
        "Uᵢⱼ = mean over b of ⟨gₐ, g_b⟩ / ‖g_b‖",
        "How fast a step along the unit gradient of a batch b of j lowers the loss of a batch a of i, to first order; "
        "mean over the batches of j.",
        "Equation 1, divided by the step size",
        "any number; negative: the loss rises",
    ),
    Definition(
        "gradient direction",
        "GDᵢⱼ = E(Uᵢⱼ / Uᵢᵢ)",
        "How much a step along j's gradients helps i, relative to a step along i's own; mean over i's batches. Row i "
        "is interfered with, column j interferes. Not symmetric; the diagonal is 1.",
        "Equation 2",
        "any number; 1: as good as the own step, 0: no effect, negative: harm",
    ),
    Definition(
        "gradient magnitude similarity",
        "GMᵢⱼ = 2 mᵢ mⱼ / (mᵢ² + mⱼ²)",
        "How alike the lengths of gradients are: mᵢ is the mean length of i's batch gradients. Symmetric.",
        "Equation 3",
        "0 to 1; 1: equal length, near 0: one dominates",
    ),
    Definition(
        "tug-of-war index",
        "Iᵢ = Σⱼ GDᵢⱼ · GMᵢⱼ",
        "How much a step shared with all others helps i, the sum including j = i. A dataset alone has 1: above 1 the "
        "others help it on balance, below 1 they get in its way. It is a sum over the datasets measured, so that runs "
        "on different datasets cannot be compared by it.",
        "Equation 4",
        "any number; 1 alone",
    ),
    Definition(
        "maximum-normalised index",
        "I / max I",
        "The index divided by the largest of the same run and level. Where the largest index is not positive it does "
        "not exist.",
        BEYOND,
        "at most 1",
    ),
    Definition(
        "estimator",
        "ratio_of_means, leave_one_out, plugin",
        "How GD is estimated. plugin: equation 2 as printed, with each batch in its own Uᵢᵢ, which biases it towards "
        "0. leave_one_out: without that batch. ratio_of_means, the default: mean of numerators over mean of "
        "leave-one-out denominators, which single batches cannot upset.",
        BEYOND,
        "a name",
    ),
    Definition(
        "sign uncertain",
        "†",
        "The denominator of GD of this row, how much the own step helps, is so close to 0 that its interval holds both "
        "signs. The row of GD and the index are not to be trusted; more batches would settle it.",
        BEYOND,
        "yes or no",
    ),
    Definition(
        "cosine",
        "cos",
        "Cosine of the mean gradients of two datasets, with the noise of sampling removed from their lengths.",
        BEYOND,
        "about −1 to 1",
    ),
    Definition(
        "statistics score",
        "|Σᵢ ḡᵢ| / Σᵢ |ḡᵢ|",
        "Of one parameter, ḡᵢ being the mean gradient of i there: 1 when all push the same way, 0 when they cancel. "
        "0/0 is undefined and left out. Noise lowers it as conflict does.",
        "Equation 5",
        "0 to 1; shown as share of parameters per tenth",
    ),
    Definition(
        "null: random signs",
        "null_signs",
        "What the distribution of scores would be if each mean gradient had its size and a sign of its own by chance.",
        BEYOND,
        "share of parameters, 0 to 1",
    ),
    Definition(
        "null: no conflict",
        "null_no_conflict",
        "What it would be if all mean gradients pointed along one direction, measured with the same noise.",
        BEYOND,
        "share of parameters, 0 to 1",
    ),
    Definition(
        "task",
        "",
        "The batches of its datasets, each dataset weighing the same.",
        "Section 3.1, which leaves the weights open",
        "a name",
    ),
    Definition(
        "not touching the parameters",
        "",
        "A dataset without a gradient on the selected parameters, such as one of text alone at a connector, has no row "
        "and no column: its numbers would all be undefined.",
        BEYOND,
        "yes or no",
    ),
)

UNCERTAINTY = (
    Definition(
        "interval",
        "low, high",
        "95% interval of this number alone: percentile bootstrap over batches within datasets, for routing over "
        "images within datasets, or samples where they have none; for features a delete-one jackknife over samples "
        "within datasets. Of many such intervals, about one in twenty misses its truth.",
        BEYOND,
        "as the number",
    ),
    Definition(
        "simultaneous interval",
        "simultaneous_low, simultaneous_high",
        "Intervals that cover the truths of all cells of a table together with 95% probability (max-type bootstrap).",
        BEYOND,
        "as the number",
    ),
    Definition(
        "adjusted p-value",
        "p_value",
        "Two-sided, adjusted for all cells of the table, of GD = 0, GM = 1, an index of 1, or no difference.",
        BEYOND,
        "0 to 1",
    ),
    Definition(
        "finding",
        "",
        "A computed sentence. It names a case of many only if the simultaneous interval leaves out the null value, or, "
        "where there are only single intervals, if these still do when widened for the number of cases (Bonferroni); "
        "the case named is the one whose interval stays furthest from it. No sentence means that nothing is supported, "
        "not that there is no effect.",
        BEYOND,
        "text",
    ),
    Definition(
        "difference",
        "b − a",
        "The same number in two runs, subtracted, with batches resampled together where both runs saw the same "
        "(paired). Two intervals of two runs do not replace it, whether they overlap or not.",
        BEYOND,
        "as the number",
    ),
)

ROUTING = (
    Definition(
        "routing weight",
        "α",
        "Share of an expert in what a token becomes (equation 9, from the router of equations 11 to 14), mean over "
        "tokens.",
        "Equations 8, 9, 11 to 14",
        "0 to 1; sums to 1 over experts",
    ),
    Definition(
        "load",
        "load",
        "Share of tokens whose largest weight an expert has.",
        BEYOND,
        "0 to 1; sums to 1 over experts",
    ),
    Definition(
        "dead expert",
        "dead",
        "An expert with less than a hundredth of a fair share of the weight.",
        BEYOND,
        "yes or no",
    ),
    Definition(
        "utilisation entropy",
        "H(mean α) / log N",
        "Entropy of the mean weights, divided by that of N equally used experts: 1 when all experts are used alike.",
        BEYOND,
        "0 to 1",
    ),
    Definition(
        "token entropy",
        "mean H(α) / log N",
        "Mean over tokens of the entropy of their weights, divided the same way: 0 when each token takes one expert.",
        BEYOND,
        "0 to 1",
    ),
    Definition(
        "mutual information",
        "MI = H(meanₜ pₜ) − meanₜ H(pₜ)",
        "What the expert tells about the task (or dataset) of a token, pₜ being the mean weights of task t, each task "
        "counting the same. Its null are the same weights with labels shuffled between samples.",
        BEYOND,
        "bits, 0 to log₂ of the smaller number of tasks and experts",
    ),
    Definition(
        "Jensen-Shannon divergence",
        "JS = H((p + q) / 2) − (H(p) + H(q)) / 2",
        "How differently two tasks are routed, p and q being their mean weights: 0 when alike, 1 without a common "
        "expert. Noise lifts it.",
        BEYOND,
        "bits, 0 to 1",
    ),
    Definition(
        "loss without an expert",
        "Δ loss",
        "What the loss gains when an expert's weight is set to 0 and the others' are made to sum to 1 again, on the "
        "same batches.",
        BEYOND,
        "any number, in the unit of the loss (nats per token)",
    ),
)

FEATURES = (
    Definition(
        "t-SNE",
        "x, y, z",
        "Points placed so that neighbours among the first principal components stay neighbours. Axes, distances "
        "between clusters and their sizes have no meaning.",
        "Figure 5",
        "no unit",
    ),
    Definition(
        "silhouette",
        "(b − a) / max(a, b)",
        "a is the mean distance of a sample to its own label, b to the nearest other; mean over samples, in the space "
        "of the features.",
        BEYOND,
        "−1 to 1; 0: labels overlap",
    ),
    Definition(
        "kNN purity",
        "purity",
        "Share of a sample's k nearest neighbours in the space of the features that have its label.",
        BEYOND,
        "0 to 1; chance is the label's share",
    ),
    Definition(
        "linear CKA",
        "CKA",
        "Alignment of the similarities between samples before and after a module, by the unbiased estimator of HSIC "
        "(debiased CKA). Unchanged by rotation and scale.",
        BEYOND,
        "at most 1; 1: the same geometry, about 0: none in common; chance may take it below 0",
    ),
    Definition(
        "trustworthiness",
        "",
        "How far neighbours in a t-SNE picture are neighbours among what it was made from.",
        BEYOND,
        "0 to 1",
    ),
    Definition(
        "neighbour overlap",
        "",
        "Share of the k nearest neighbours that the pictures of two seeds have in common.",
        BEYOND,
        "0 to 1; chance is k over the other samples",
    ),
)

ABLATION = (
    Definition(
        "relative gain",
        "Δ = mean of (M − B) / B",
        "Mean over datasets, in percent: M is the arm's primary metric, B the baseline's.",
        "Section 4.1",
        "percent; 0: as the baseline",
    ),
)

DEFINITIONS: tuple[Definition, ...] = (*GRADIENTS, *UNCERTAINTY, *ROUTING, *FEATURES, *ABLATION)
