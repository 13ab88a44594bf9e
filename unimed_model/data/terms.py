"""What each published dataset is: its size in the paper, its licence, who may have it and how, what is known of it.

Licences are those of the data. The paper's Table 4 gives the code's licence for three of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

Access = Literal["free", "on request", "credentialed"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a user must know before using a dataset.

    Attributes:
        paper: samples of (train, test) in the paper's Table 4; None where the dataset is not in it.
        licence: of the data.
        access: `free` to download, `on request` (a form, or terms to accept), `credentialed` (a signed agreement).
        source: where it is published.
        steps: what to do to get it, where that is not `unimed-data fetch`.
        known: a problem of the published data that results should mention.
    """

    paper: tuple[int, int] | None
    licence: str
    access: Access
    source: str
    steps: tuple[str, ...] = ()
    known: str | None = None


_SLAKE = Terms((1421, 201), "CC BY 4.0", "free", "https://www.med-vqa.com/slake")
_SA_MED2D = Terms(
    (20000, 4000),
    "CC BY-NC-SA 4.0; each constituent dataset keeps its own terms",
    "on request",
    "https://huggingface.co/datasets/OpenGVLab/SA-Med2D-20M",
    (
        "Accept the terms on https://huggingface.co/datasets/OpenGVLab/SA-Med2D-20M (or ask on OpenXLab, "
        "GMAI/SA-Med2D-20M).",
        "Download raw/SA-Med2D-16M.z01 to .z10 and .zip, join them with 'zip -s=0 SA-Med2D-16M.zip --out whole.zip' "
        "and unpack: about 1.5 TB.",
        "Put the folder SAMed2Dv1 (images/, masks/, SAMed2D_v1.json, SAMed2D_v1_class_mapping_id.json) into "
        "ROOT/sa_med2d.",
    ),
)

TERMS: Mapping[str, Terms] = MappingProxyType(
    {
        "medqa": Terms((10178, 1273), "MIT", "free", "https://github.com/jind11/MedQA"),
        "pubmedqa": Terms((500, 500), "MIT", "free", "https://github.com/pubmedqa/pubmedqa"),
        "slake_vqa": replace(_SLAKE, paper=(6018, 1014)),
        "slake_rec": _SLAKE,
        "slake_reg": _SLAKE,
        "path_vqa": Terms(
            (19755, 6761),
            "MIT; images keep the rights of textbooks and PEIR",
            "free",
            "https://github.com/UCSD-AI4H/PathVQA",
            known="exact duplicates of image, question and answer: 101 in train, 20 in val, 42 in test; the hub's "
            "parquet form leaves them out, so that its counts are 19654, 6259 and 6719",
        ),
        "sa_med2d_rec": _SA_MED2D,
        "sa_med2d_reg": _SA_MED2D,
        "mimic_cxr": Terms(
            (9997, 3858),
            "PhysioNet Credentialed Health Data License 1.5.0: no redistribution, no third-party services",
            "credentialed",
            "https://physionet.org/content/mimic-cxr-jpg/2.1.0",
            (
                "Become a credentialed user of PhysioNet: https://physionet.org/settings/credentialing (CITI training "
                "in research with human subjects).",
                "Sign the data use agreements of mimic-cxr-jpg 2.1.0 (images, splits) and mimic-cxr 2.1.0 (reports).",
                "Download with wget as the project pages say, and put files/, the mimic-cxr-2.0.0-*.csv.gz tables and "
                "mimic-cxr-reports.zip into ROOT/mimic_cxr; or, for the paper's counts, R2Gen's annotation.json, which "
                "its authors give to licence holders.",
            ),
        ),
        "mpx_single": Terms(
            (31416, 6664),
            "none stated; MedPix's own terms",
            "on request",
            "https://huggingface.co/datasets/chaoyi-wu/RadFM_data_csv",
            (
                "Read the terms of MedPix (https://medpix.nlm.nih.gov): neither the tables nor the images state a "
                "licence of their own.",
                "Download data_csv.zip from https://huggingface.co/datasets/chaoyi-wu/RadFM_data_csv and the archive "
                "of https://huggingface.co/datasets/chaoyi-wu/MedPix-Images.",
                "Put MedPix_single_train.csv and MedPix_single_test.csv into ROOT/mpx and the images into "
                "ROOT/mpx/images.",
            ),
            known="captions are noisy (titles of quizzes among them)",
        ),
        "dermamnist": Terms(
            (7007, 2005),
            "CC BY-NC 4.0",
            "free",
            "https://medmnist.com",
            known="lesions of HAM10000 occur in more than one split, as the same or nearly the same picture "
            "(corrected in DermaMNIST-C)",
        ),
        "organsmnist": Terms((13932, 8827), "CC BY 4.0", "free", "https://medmnist.com"),
        "vqa_rad": Terms(
            None,
            "CC0 1.0",
            "free",
            "https://osf.io/89kps",
            known="images occur in both of its published splits",
        ),
    }
)
"""Name of a published dataset -> its terms."""
