"""How each number of the page is defined; equations are numbered as in arXiv 2409.17508."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Definition:
    """One number.

    Attributes:
        name: as pictures call it.
        formula: in characters that every browser has; empty where words say it all.
        text: what it means, in a sentence or two.
        source: equation or section of the paper, or that it is not in it.
    """

    name: str
    formula: str
    text: str
    source: str


BEYOND = "beyond the paper"

DEFINITIONS = (
    Definition(
        "Gradient of a batch",
        "gₐ = ∇θ L(batch a)",
        "Gradient of the mean loss of one batch of one dataset with respect to the selected shared parameters θ. "
        "Dataset i owns the batches Sᵢ.",
        "Section 3.1",
    ),
    Definition(
        "Effect on the loss",
        "Δⱼ Lᵢ ≈ λ · mean over b in Sⱼ of ⟨g_b, gₐ⟩ / ‖g_b‖",
        "How much a small step along a unit gradient of j lowers the loss of i, to first order.",
        "Equation 1",
    ),
    Definition(
        "GD, gradient direction",
        "GDᵢⱼ = mean over a in Sᵢ of (Δⱼ Lᵢ / Δᵢ Lᵢ)",
        "What a step for j (column) does for i (row), as a share of what i's own step does. 1: as good as its own; 0: "
        "nothing; negative: harm. Not symmetric; 1 on the diagonal.",
        "Equation 2",
    ),
    Definition(
        "GM, gradient magnitude similarity",
        "GMᵢⱼ = 2 mᵢ mⱼ / (mᵢ² + mⱼ²),  mᵢ = mean over a in Sᵢ of ‖gₐ‖",
        "1 where both gradients are equally long, near 0 where one dwarfs the other. Symmetric.",
        "Equation 3",
    ),
    Definition(
        "Tug-of-war index",
        "Iᵢ = Σⱼ GDᵢⱼ · GMᵢⱼ",
        "What training on all datasets does for i, its own part (1) included. Divided by the largest index of the same "
        "run, runs can be laid side by side; where no index is positive this is undefined.",
        "Equation 4",
    ),
    Definition(
        "Statistics score",
        "score(p) = |Σᵢ ḡᵢₚ| / Σᵢ |ḡᵢₚ|",
        "Of one parameter p, from the mean gradients ḡᵢ of all datasets (or tasks): 1 where all pull the same way, 0 "
        "where they cancel out. Parameters without any gradient have no score; they are counted and left out.",
        "Equation 5",
    ),
    Definition(
        "Nulls of the statistics score",
        "",
        "Equation 5 also measures noise. “If signs were independent”: the same sizes of mean gradients with signs "
        "drawn anew for every dataset. “If there were no conflict”: all datasets share one direction and differ by the "
        "noise of the batches alone.",
        BEYOND,
    ),
    Definition(
        "Estimators of GD",
        "",
        "plugin: the equations as printed; a batch also stands in its own mean, which adds a bias to the denominator. "
        "leave_one_out: each batch is left out of its own mean. ratio_of_means (the default): leave-one-out numerators "
        "and denominators are averaged first and divided then, which keeps the variance finite.",
        BEYOND,
    ),
    Definition(
        "Intervals",
        "",
        "Percentile bootstrap over batches within datasets (over samples within datasets for routing and features). "
        "Simultaneous intervals cover all cells of a table together with the stated probability; adjusted p-values "
        "belong to them.",
        BEYOND,
    ),
    Definition(
        "† Sign uncertain",
        "",
        "GD divides by the effect of a dataset's own step. Where the interval of this denominator spans 0, the whole "
        "row may have either sign and is not to be trusted; more batches help.",
        BEYOND,
    ),
    Definition(
        "Not touching the parameters",
        "",
        "A dataset without a gradient on the selected parameters, such as a text-only one at a connector, has no "
        "row: its numbers would all be undefined.",
        BEYOND,
    ),
    Definition(
        "Tasks",
        "",
        "A task pools the batches of its datasets, each dataset with equal weight.",
        "Section 3.1, which leaves the weights open",
    ),
    Definition(
        "Routing weight, load, dead experts",
        "",
        "Mean weight that the router gives an expert (Equations 11 to 14); load is the share of tokens for which the "
        "expert has the largest weight. An expert is dead if it carries less than a hundredth of a fair share of the "
        "weight.",
        "Figure 4c; load beyond the paper",
    ),
    Definition(
        "Utilisation entropy, per-token entropy",
        "H(w) = −Σₑ wₑ log₂ wₑ, divided by log₂(experts)",
        "Of the mean weights: 1 if all experts are used alike. As the mean over single tokens' weights: near 0 if each "
        "token goes to one expert, 1 if all tokens go to all alike.",
        BEYOND,
    ),
    Definition(
        "Mutual information of task and expert",
        "I = H(meanₜ pₜ) − meanₜ H(pₜ)",
        "How much the expert tells about the task, in bits, each task as likely: 0 where all tasks are routed alike. "
        "The null's 95 % point comes from shuffling labels between samples.",
        BEYOND,
    ),
    Definition(
        "Jensen-Shannon divergence",
        "JS(p, q) = H((p + q) / 2) − (H(p) + H(q)) / 2",
        "How differently two tasks (or datasets) are routed, in bits: 0 alike, 1 without a common expert.",
        BEYOND,
    ),
    Definition(
        "Loss without an expert",
        "",
        "What the loss gains when the expert's weight is set to 0 and the weights of the others are made to sum to 1 "
        "again; paired by batch.",
        BEYOND,
    ),
    Definition(
        "t-SNE",
        "",
        "A picture in two or three dimensions that keeps neighbours together, made of the first principal components "
        "of features averaged over tokens. Distances between clouds, their sizes and their places mean little, and "
        "another seed gives another picture; the measures below look at the features themselves.",
        "Figure 5",
    ),
    Definition(
        "Silhouette",
        "s = (b − a) / max(a, b)",
        "a: mean distance of a sample to its own group, b: to the nearest other group. 1: far apart, 0: mixed, "
        "negative: nearer to another group.",
        BEYOND,
    ),
    Definition(
        "kNN purity",
        "",
        "Share of a sample's k nearest neighbours that belong to its own group; by chance this is the group's share of "
        "the other samples.",
        BEYOND,
    ),
    Definition(
        "Linear CKA",
        "CKA(X, Y) = ‖YᵀX‖² / (‖XᵀX‖ · ‖YᵀY‖)",
        "Similarity of two sets of centred features of the same samples, in Frobenius norms: 1 if they are equal up to "
        "rotation and scale. Here of the features before and after the connector.",
        BEYOND,
    ),
    Definition(
        "Stability of t-SNE",
        "",
        "Overlap: share of k nearest neighbours that the pictures of two seeds have in common. Trustworthiness: "
        "whether neighbours in a picture are neighbours among the features, 1 at best.",
        BEYOND,
    ),
    Definition(
        "Difference of runs",
        "difference = B − A",
        "Bootstrapped with the same draws of batches in both runs where they were measured on the same batches. "
        "“Higher” or “lower” where the p-value, adjusted for all cells of the table, is at most 0.05; all else "
        "is “not sure”.",
        BEYOND,
    ),
    Definition(
        "Δ, gain over the baseline",
        "Δ = 1/S · Σᵢ (Mᵢ − Mᵢ of the baseline) / Mᵢ of the baseline · 100 %",
        "Mean relative gain of the metrics of S datasets of a task, or of all.",
        "Section 4.1",
    ),
)
