"""The template itself, read without this project's code: what the corpus says is compared with it."""

import numpy as np
import pytest


class Template:
    """The three volumes as nilearn gives them, and slices of them by millimetres."""

    def __init__(self) -> None:
        from nilearn import datasets

        niftis = {
            "t1": datasets.load_mni152_template(resolution=1),
            "gray": datasets.load_mni152_gm_template(resolution=1),
            "white": datasets.load_mni152_wm_template(resolution=1),
        }
        self.affine = niftis["t1"].affine
        self.volumes = {kind: np.asarray(nifti.dataobj) for kind, nifti in niftis.items()}
        self.axes = {"sagittal": 0, "coronal": 1, "axial": 2}

    def section(self, plane: str, position: int, kind: str) -> np.ndarray:
        """A section as (first other axis, second other axis), both in growing millimetres."""
        axis = self.axes[plane]
        # the corpus shows the left side of the template on sagittal pictures
        millimetres = -position if plane == "sagittal" else position
        index = round((millimetres - self.affine[axis, 3]) / self.affine[axis, axis])
        return np.moveaxis(self.volumes[kind], axis, 0)[index]

    def tissues(self, plane: str, position: int) -> tuple[np.ndarray, np.ndarray]:
        """Where a section is at least half gray, and at least half white matter."""
        return self.section(plane, position, "gray") >= 0.5, self.section(plane, position, "white") >= 0.5


@pytest.fixture(scope="session")
def template():
    return Template()
