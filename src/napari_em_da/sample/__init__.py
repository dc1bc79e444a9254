"""A small piece of real tissue that comes with the package."""

from __future__ import annotations

from importlib.resources import as_file, files

from napari_em_da.volume import Volume


def flyem_sample() -> tuple[Volume, Volume]:
    """Return a crop of the FlyEM medulla FIB-SEM data, image and neurons, 64 x 160 x 160 voxels of 10 nm.

    Returns
    -------
    image : Volume uint8
    instances : Volume uint16
        Neuron numbers; touching neurons have no gap between them.

    References
    ----------
    Parag, Chakraborty, Plaza and Scheffer (2015), PLoS ONE 10(5) e0125825; Janelia FlyEM project team. Creative
    Commons Attribution; see ``LICENSE.txt`` beside the files.
    """
    image, instances = (_load(f"flyem_medulla_{name}.tif", f"FlyEM {name}") for name in ("image", "instances"))
    return image, instances


def _load(file: str, name: str) -> Volume:
    with as_file(files(__name__) / file) as path:  # from a zipped installation the file is gone after the block
        opened = Volume.open(path, name=name)
        return Volume.from_array(opened.read(), voxel_nm=opened.voxel_nm, name=name)
