"""Refining, measuring and scoring layers, without a window."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

import napari_em_da as em
from napari_em_da import layers
from napari_em_da.errors import ConfigError, DataError
from napari_em_da.jobs import run
from napari_em_da.layers.objects import heading
from napari_em_da.layers.refine import postprocess_config, reach_of
from napari_em_da.layers.scores import agreement, config_of, splits_and_merges
from napari_em_da.postprocess import STEPS
from napari_em_da.volume import Volume
from napari_em_da.workflows.sidecar import write_sidecar

PLACE: dict[str, Any] = {"scale": (30.0, 8.0, 8.0), "units": ("nm",) * 3, "translate": (0.0, 16.0, 0.0)}
VOXEL = (30.0, 8.0, 8.0)


def chain(*steps: Any) -> em.ChainConfig:
    return em.ChainConfig(steps=steps)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[layers.LayerData, Path]:
    """A segmentation (7 is mito, 4 is er) and the probabilities that were stored with it."""
    rng = np.random.default_rng(0)
    raw = ndimage.gaussian_filter(rng.normal(size=(24, 40, 48, 3)), (1, 3, 3, 0))
    p = np.exp(40 * raw)
    p = (p / p.sum(-1, keepdims=True)).astype(np.float32)
    path = tmp_path / "p.zarr"
    Volume.from_array(p, voxel_nm=VOXEL).save(path)
    write_sidecar(path, {"mito": (7,), "er": (4,)}, "probabilities")
    labels = np.array([0, 7, 4], np.uint8)[p.argmax(-1)]
    return (labels, {**PLACE, "name": "seg"}, "labels"), path


def applied(source: layers.Refinable, steps: em.ChainConfig, output: Path) -> Any:
    return Volume.open(run(layers.postprocess(source, steps, output)).output).read()


def same_objects(first: Any, second: Any) -> bool:
    """Whether two label images are one partition: each id of one goes with one id of the other."""
    pairs = {(int(a), int(b)) for a, b in zip(first.ravel(), second.ravel(), strict=True)}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("z", [0, 1, 11, 22, 23])
@pytest.mark.parametrize(
    "steps",
    [
        ("threshold", {"z_filter": {"radius": 2}}),
        ({"threshold": {"levels": {"mito": 0.4}}}, {"z_filter": {"mode": "median", "radius": 3}}),
        ({"confidence": {"min_probability": 0.6}},),
        ("threshold", {"fill_holes": {"sections": True}}, {"remove_small": {"sections": True, "min_size_nm2": 2000}}),
    ],
)
def test_the_previewed_section_is_that_of_the_volume(stored: Any, tmp_path: Path, steps: Any, z: int) -> None:
    layer, path = stored
    source = layers.refinable(layer, path)
    preview = layers.postprocess_section(source, chain(*steps), z)
    whole = applied(source, chain(*steps), tmp_path / "out.tif")
    data, about, kind = preview.layer
    assert kind == "labels" and preview.exact and about["scale"] == (8.0, 8.0) and about["translate"] == (16.0, 0.0)
    np.testing.assert_array_equal(data, whole[z])
    assert set(np.unique(whole)) <= {0, 4, 7, 255}, "label values, not class numbers"


def test_objects_in_3d_are_previewed_from_a_slab_that_is_named(stored: Any, tmp_path: Path) -> None:
    layer, path = stored
    source, steps = layers.refinable(layer, path), chain("threshold", "components")
    preview = layers.postprocess_section(source, steps, 12, around=3)
    assert (preview.first, preview.last, preview.exact) == (9, 15, False)
    whole = layers.postprocess_section(source, steps, 12, around=24)
    assert (whole.first, whole.last, whole.exact) == (0, 23, True)
    ids = applied(source, steps, tmp_path / "ids.tif")
    assert same_objects(whole.layer[0], ids[12])
    np.testing.assert_array_equal(preview.layer[0] > 0, ids[12] > 0)


def test_sections_of_ground_truth_stay(stored: Any) -> None:
    layer, path = stored
    labels = layer[0].copy()
    labels[11] = 0
    source = layers.refinable((labels, *layer[1:]), labelled=[11])
    kept = layers.postprocess_section(source, chain({"z_filter": {"mode": "fill"}}), 11).layer[0]
    assert not kept.any()
    free = layers.postprocess_section(layers.refinable((labels, *layer[1:])), chain({"z_filter": {"mode": "fill"}}), 11)
    np.testing.assert_array_equal(free.layer[0], np.where(labels[10] == labels[12], labels[10], 0))


def test_reach_is_what_the_options_say() -> None:
    assert reach_of(chain("threshold"), "probabilities") == 0
    assert reach_of(chain("threshold", {"z_filter": {"radius": 2}}), "probabilities") == 4
    assert reach_of(chain("threshold", {"z_filter": {"radius": 2, "mode": "fill"}}), "probabilities") == 2
    assert reach_of(chain("confidence"), "probabilities") == 1
    assert reach_of(chain({"components": {"sections": True}}), "labels") == 0
    assert reach_of(chain({"z_filter": {}}, "components"), "labels") is None
    with pytest.raises(ConfigError, match="takes probabilities"):
        reach_of(chain("threshold"), "labels")


def test_steps_that_state_a_reach_read_no_further() -> None:
    """Brute force: what lies outside of the reach of a step may be anything."""
    rng = np.random.default_rng(1)
    p = rng.dirichlet((1, 1), size=(15, 12, 12)).astype(np.float32)
    labels, ids = (p[..., 1] > 0.5).astype(np.uint8), (rng.integers(0, 3, (15, 12, 12))).astype(np.uint32)
    from napari_em_da.postprocess import Stack, apply_chain

    tried = {
        "confidence": [{}, {"continuity": False}],
        "z_filter": [{"radius": r, "mode": m} for r in (1, 3) for m in ("veto", "fill", "veto_fill", "median")],
        "remove_small": [{"sections": True, "min_size_nm2": 3, "fill": "neighbour_majority"}],
        "fill_holes": [{"sections": True}],
        "components": [{"sections": True}],
    }
    for name in set(STEPS.names()) - {"remove_small"} | set(tried):
        step = STEPS[name]
        for given in tried.get(name, [{}]):
            reach = step.reach(step.options(**given))
            if reach is None:
                continue
            holds = step.takes[0]
            data = {"probabilities": p, "labels": labels, "instances": ids}[holds]
            noisy = data[::-1].copy()
            z = 7
            noisy[z - reach : z + reach + 1] = data[z - reach : z + reach + 1]
            outcomes = [
                apply_chain(chain({name: given} if given else name), Stack(d, holds, (1, 1, 1))).data[z]
                for d in (data, noisy)
            ]
            if name == "components":
                assert same_objects(*outcomes)
            else:
                np.testing.assert_array_equal(*outcomes, err_msg=f"{name} {given}")


def test_a_painted_layer_is_refined_as_it_is(stored: Any, tmp_path: Path) -> None:
    layer, _ = stored
    labels = np.zeros((5, 20, 20), np.int64)
    labels[:, 2:9, 2:9] = 300
    labels[2, 2:9, 2:9] = 0
    labels[:, 12:18, 12:18] = 7
    source = layers.refinable((labels, layer[1], "labels"))
    steps = chain({"remove_small": {"min_size_nm3": 40 * 5 * 30 * 64}})
    preview = layers.postprocess_section(source, steps, 0)
    whole = applied(source, steps, tmp_path / "out.tif")
    assert preview.exact
    np.testing.assert_array_equal(preview.layer[0], whole[0])
    assert set(np.unique(whole)) == {0}, "36 · 5 and 49 · 2 voxels are fewer than 200"
    assert [p.name for p in tmp_path.glob(".layer-*")] == []
    with pytest.raises(ConfigError, match="No file holds the layer 'seg'"):
        postprocess_config(source, steps, tmp_path / "again.tif")
    with pytest.raises(DataError, match="exists already"):
        run(layers.postprocess(source, steps, tmp_path / "out.tif"))


def test_the_copied_call_gives_the_same_volume(stored: Any, tmp_path: Path) -> None:
    layer, path = stored
    source, steps = layers.refinable(layer, path), chain("threshold", {"z_filter": {"radius": 1}})
    whole = applied(source, steps, tmp_path / "a.tif")
    config = postprocess_config(source, steps, tmp_path / "b.tif")
    assert config.input == path and config.voxel_nm is None
    run(em.run_chain(config))
    np.testing.assert_array_equal(Volume.open(tmp_path / "b.tif").read(), whole)
    (found,) = layers.refined_layers(run(em.run_chain(config.model_copy(update={"overwrite": True}))), source)
    assert found[1]["features"]["class"] == ["background", "mito", "er"]
    assert found[1]["translate"] == PLACE["translate"] and found[1]["metadata"]["holds"] == "labels"


def test_probabilities_of_another_segmentation_are_refused(stored: Any) -> None:
    layer, path = stored
    with pytest.raises(DataError, match=r"p.zarr has shape \(24, 40, 48\), but the segmentation 'seg' \(20, 40, 48\)"):
        layers.refinable((layer[0][:20], *layer[1:]), path)


def test_a_single_section(stored: Any, tmp_path: Path) -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[5:9, 5:9] = 1
    labels[15, 15] = 1
    place = {"scale": (8.0, 8.0), "units": ("nm", "nm"), "name": "flat"}
    source = layers.refinable((labels, place, "labels"))
    steps = chain({"remove_small": {"sections": True, "min_size_nm2": 128}})
    data = layers.postprocess_section(source, steps, 5).layer[0]
    assert data.sum() == 16 and data[15, 15] == 0
    result = run(layers.postprocess(source, steps, tmp_path / "flat.tif"))
    (found,) = layers.refined_layers(result, source)
    np.testing.assert_array_equal(found[0], data)


def test_table_is_that_of_measure_layer() -> None:
    ids = np.zeros((4, 12, 12), np.uint32)
    ids[0, 1:3, 1:5], ids[1:, 6:9, 6:10] = 5, 9
    layer = (ids, {**PLACE, "name": "ids"}, "labels")
    objects = run(layers.measure_objects(layer, columns=["size"], unit="um"))
    _, about, _ = layers.measure_layer(layer, columns=["size", "centroid"], unit="um")
    expected = {**about["features"]}
    np.testing.assert_array_equal(objects.table["id"], expected.pop("index"))
    assert list(objects.table)[1:] == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(objects.table[name], values)
    assert objects.place(0) == pytest.approx((0, 1.5, 2.5)) and objects.place(1) == pytest.approx((2, 7, 7.5))
    assert objects.unit == "um" and objects.count == 2
    pixels = run(layers.measure_objects((ids, {"name": "no size"}, "labels"), columns=["size"]))
    assert pixels.unit == "px" and pixels.place(1) == pytest.approx((2, 7, 7.5))


def test_rows_where() -> None:
    table = {"id": np.array([1, 2, 3]), "volume_nm3": np.array([5.0, 2e6, 9e6]), "voxels": np.array([1, 2, 3])}
    table |= {"area_nm2": np.array([1.0, 2, 3])}
    assert layers.rows_where(table, "").tolist() == [0, 1, 2]
    assert layers.rows_where(table, "volume > 1e6").tolist() == [1, 2]
    assert layers.rows_where(table, "volume>1e6 and area_nm2 <= 2, id != 7").tolist() == [1]
    assert layers.rows_where(table, "vox == 3 & id >= 1").tolist() == [2]
    with pytest.raises(ConfigError, match="'vo' may be volume_nm3, voxels"):
        layers.rows_where(table, "vo > 1")
    with pytest.raises(ConfigError, match="volum"):
        layers.rows_where(table, "colour > 1")
    for wrong in ("volume", "volume > large", "1 < volume", "__import__('os')"):
        with pytest.raises(ConfigError, match="is no condition"):
            layers.rows_where(table, wrong)
    assert heading("smooth_area_um2") == "smooth area (µm²)" and heading("id") == "id"


@pytest.fixture
def pair() -> tuple[layers.LayerData, layers.LayerData]:
    """Annotated 2 (mito) and 3 or 5 (er); predicted 2 and 3, wrong in places; 255 is not annotated."""
    rng = np.random.default_rng(3)
    truth = rng.choice(np.array([0, 2, 3, 5], np.uint8), (6, 16, 20))
    guess = np.where(rng.random(truth.shape) < 0.3, rng.choice(np.array([0, 2, 3], np.uint8), truth.shape), truth)
    guess[guess == 5] = 3
    truth[3], truth[4, :5] = 255, 255
    return (guess, {**PLACE, "name": "guess"}, "labels"), (truth, {**PLACE, "name": "truth"}, "labels")


CLASSES = {"mito": (2,), "er": (3, 5)}


def test_scores_of_sections_are_those_of_each_section_alone(pair: Any) -> None:
    what = layers.compare(*pair, classes=CLASSES, ignore_label=255)
    scored = run(layers.score(what, ["iou", "recall"]))
    guess, truth = pair[0][0], pair[1][0]

    def of(z: slice, values: tuple[int, ...], recall: bool) -> float:
        known = truth[z] != 255
        a, b = np.isin(guess[z], values) & known, np.isin(truth[z], values) & known
        whole = b.sum() if recall else (a | b).sum()
        return float((a & b).sum() / whole) if whole else np.nan

    for name, values in CLASSES.items():
        for metric in ("iou", "recall"):
            expected = [of(slice(z, z + 1), values, metric == "recall") for z in range(6)]
            np.testing.assert_allclose(scored.sections[f"{metric}/{name}"], expected)
            assert scored.scores[f"{metric}/{name}"] == pytest.approx(of(slice(None), values, metric == "recall"))
    assert np.isnan(scored.sections["iou/mito"][3]), "nothing is annotated there"
    mean = [(a + b) / 2 for a, b in zip(scored.sections["iou/mito"], scored.sections["iou/er"], strict=True)]
    np.testing.assert_allclose(scored.sections["iou"], mean)


def test_the_same_scores_as_from_files(pair: Any, tmp_path: Path) -> None:
    class Layer:
        def __init__(self, item: Any, path: Path) -> None:
            self.data, self.metadata = item[0], {"path": str(path)}
            self.__dict__.update(item[1])

    files = []
    for item in pair:
        files.append(Layer(item, tmp_path / f"{item[1]['name']}.tif"))
        Volume.from_array(item[0], voxel_nm=VOXEL).save(tmp_path / f"{item[1]['name']}.tif")
    what = layers.compare(*files, classes=CLASSES, ignore_label=255)
    metrics = ["dice", "hd95", "miou"]
    config = config_of(what, *files, metrics)
    from_files = run(em.evaluate(config)).scores
    scored = run(layers.score(what, metrics, sections=False))
    assert not scored.sections
    assert scored.scores == pytest.approx(from_files, nan_ok=True)
    with pytest.raises(ConfigError, match="No file holds the layer"):
        files[0].metadata = {}
        config_of(what, *files, metrics)


def test_layers_that_do_not_lie_on_each_other_are_refused(pair: Any) -> None:
    guess, truth = pair
    with pytest.raises(DataError, match=r"has shape \(5, 16, 20\), but the ground truth 'truth' \(6, 16, 20\)"):
        layers.compare((guess[0][:5], *guess[1:]), truth)
    with pytest.raises(DataError, match="has voxels of 30 x 8 x 8 nm, but the ground truth 'truth' of 30 x 4 x 4"):
        layers.compare(guess, (truth[0], {**truth[1], "scale": (30, 4, 4), "translate": (0, 8, 0)}, "labels"))
    with pytest.raises(DataError, match="is shifted by 0 x 2 x 0 pixels against the ground truth 'truth'"):
        layers.compare(guess, (truth[0], {**truth[1], "translate": (0, 0, 0)}, "labels"))
    with pytest.raises(DataError, match="holds float32 values"):
        layers.compare((guess[0].astype(np.float32), *guess[1:]), truth)


def test_hits_misses_and_false_alarms(pair: Any) -> None:
    what = layers.compare(*pair, classes=CLASSES, ignore_label=255)
    data, about, kind = run(agreement(what))
    guess, truth = pair[0][0], np.where(pair[1][0] == 5, 3, pair[1][0])
    expected = np.where(truth > 0, np.where(guess == truth, 1, 2), np.where(guess > 0, 3, 0))
    expected[truth == 255] = 0
    np.testing.assert_array_equal(data, expected)
    assert kind == "labels" and about["translate"] == PLACE["translate"]
    with pytest.raises(ConfigError, match="are of objects"):
        run(splits_and_merges(what))


def test_splits_and_merges() -> None:
    truth, guess = np.zeros((1, 4, 12), np.uint16), np.zeros((1, 4, 12), np.uint16)
    truth[..., :6], truth[..., 8:] = 1, 2
    guess[..., :4], guess[..., 4:6], guess[..., 8:10] = 7, 8, 9
    what = layers.compare((guess, {}, "labels"), (truth, {}, "labels"), kind="instances")
    data = run(splits_and_merges(what))[0]
    np.testing.assert_array_equal(data[0, 0], [0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 4, 4])


@pytest.mark.parametrize("named", [True, False])
def test_exported_files(pair: Any, tmp_path: Path, named: bool) -> None:
    what = layers.compare(*pair, classes=CLASSES if named else None, ignore_label=255)
    scored = run(layers.score(what, ["iou", "precision"]))
    folder = run(layers.export(what, scored, tmp_path))
    assert folder == tmp_path / "evaluation"
    saved = json.loads((folder / "scores.json").read_text())
    assert saved["scores"]["iou"] == scored.scores["iou"] and saved["sections"]["iou"][3] is None
    with (folder / "scores.csv").open(newline="") as file:
        rows = {row["score"]: row["value"] for row in csv.DictReader(file)}
    assert set(rows) == set(scored.scores) and float(rows["precision"]) == scored.scores["precision"]
    with (folder / "sections.csv").open(newline="") as file:
        sections = list(csv.DictReader(file))
    assert [row["section"] for row in sections] == [str(z) for z in range(6)] and sections[3]["iou"] == ""
    assert float(sections[5]["iou"]) == scored.sections["iou"][5]
    pictures = {p.name for p in folder.glob("*.png")}
    assert pictures == {"sections-classes.png", "confusion.png", "overlay.png"}
    assert all(p.read_bytes()[:4] == b"\x89PNG" for p in folder.glob("*.png"))
    assert run(layers.export(what, scored, tmp_path)).name == "evaluation-2", "nothing is overwritten"


def test_a_class_that_does_not_occur_says_why(pair: Any) -> None:
    what = layers.compare(*pair, classes={"mito": (2,), "golgi": (9,)}, ignore_label=255)
    scored = run(layers.score(what, ["iou"], sections=False))
    assert np.isnan(scored.scores["iou/golgi"])
    assert scored.undefined["iou/golgi"] == "class 'golgi': no voxel of it occurs"
