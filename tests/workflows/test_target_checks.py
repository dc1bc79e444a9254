"""Targets that cannot be meant are refused, odd ones are remarked on."""

from __future__ import annotations

import pytest

from napari_em_da.errors import ConfigError, DataError
from napari_em_da.synthetic import phantom_pair
from napari_em_da.volume import Volume
from napari_em_da.workflows.target_checks import check_target


@pytest.fixture(scope="module")
def volumes() -> tuple[Volume, Volume, Volume]:
    a, b = phantom_pair((6, 96, 96), 3)
    return a.image, b.image, b.labels


def test_another_microscope_passes(volumes: tuple[Volume, Volume, Volume]) -> None:
    assert check_target(volumes[1], [volumes[0]]) == []


def test_the_source_itself_is_refused(volumes: tuple[Volume, Volume, Volume]) -> None:
    with pytest.raises(ConfigError, match="is the source"):
        check_target(volumes[0], [volumes[0]])


def test_labels_are_refused(volumes: tuple[Volume, Volume, Volume]) -> None:
    with pytest.raises(DataError, match="as labels do"):
        check_target(volumes[2], [volumes[0]])


def test_blank_and_single_sections_are_told(volumes: tuple[Volume, Volume, Volume]) -> None:
    data = volumes[1].read()
    data[2] = 7
    (text,) = check_target(Volume.from_array(data), [volumes[0]])
    assert text.startswith("1 of 6") and "(2" in text
    (text,) = check_target(Volume.from_array(volumes[1].read()[:1]), [volumes[0]])
    assert "single section" in text
    data[:4] = 7
    with pytest.raises(DataError, match="4 of 6 looked-at sections"):
        check_target(Volume.from_array(data), [volumes[0]])


def test_inverted_contrast_is_told(volumes: tuple[Volume, Volume, Volume]) -> None:
    inverted = Volume.from_array(255 - volumes[1].read())
    (text,) = check_target(inverted, [volumes[0]])
    assert "looks inverted" in text
