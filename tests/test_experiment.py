"""Rows of an experiment and the artefacts that they share."""

import pytest
from conftest import CONFIGS

from gmp_plugin.errors import UserError
from gmp_plugin.experiment import Experiment, choose_rows, read_rows
from gmp_plugin.progress import describe, progress

SCALES = [64, 512, 4096]
METHOD = "multitask.layer-3.k64-512-4096.from_original.masked"


def rows(*names, **settings):
    tables = read_rows(CONFIGS / "ablations.yaml", SCALES, **settings)
    return choose_rows(tables, list(names), settings.get("n_layers"))


def test_table_3_shares_stage_1_labels_and_stage_2():
    table = rows("table3")
    assert list(table) == ["gmp_atl", "cross_entropy", "no_pseudo_labels", "no_pseudo_labels_cross_entropy"]
    variants = {name: row.variants() for name, row in table.items()}
    assert variants["gmp_atl"] == {
        "stage1": "multitask", "labels": "multitask.layer-3", "stage2": METHOD, "stage3": f"{METHOD}.am_softmax",
    }  # fmt: skip
    assert variants["cross_entropy"] == {**variants["gmp_atl"], "stage3": f"{METHOD}.cross_entropy"}
    assert variants["no_pseudo_labels"] == {
        "stage1": None, "labels": None, "stage2": None, "stage3": "original.am_softmax",
    }  # fmt: skip
    assert variants["no_pseudo_labels_cross_entropy"]["stage3"] == "original.cross_entropy"


def test_layer_minus_3_of_table_4_is_the_method_itself():
    table = rows("gmp_atl", "table4")
    assert list(table) == ["gmp_atl", *(f"layer_-{k}" for k in range(1, 9))]
    assert table["layer_-3"].variants() == table["gmp_atl"].variants()
    assert {row.variants()["stage1"] for row in table.values()} == {"multitask"}


def test_a_small_hubert_has_fewer_rows():
    assert list(rows("table4", n_layers=4)) == ["layer_-1", "layer_-2", "layer_-3", "layer_-4"]
    with pytest.raises(UserError, match=r"ablations=layer_-5: layer_-5: layer -5 is out of range: the model has 4"):
        rows("layer_-5", n_layers=4)
    with pytest.raises(UserError, match=r"^layer 9 is out of range: the model has 4 transformer layers"):
        rows("gmp_atl", layer=9, n_layers=4)
    with pytest.raises(UserError, match=r"ablations=layer_9: ablations.yaml has table3, .*layer_-4"):
        rows("layer_9", n_layers=4)


def test_a_layer_that_is_written_in_two_ways():
    """It would be computed twice, and the report take one for a copy of the other."""
    with pytest.raises(UserError, match=r"rows gmp_atl and layer_-3: layers 2 and -3 are one and the same, .*layer=-3"):
        rows("gmp_atl", "table4", layer=2, n_layers=4)
    assert list(rows("gmp_atl", "layer_-2", "flesa", layer=2, n_layers=4))
    with pytest.raises(UserError, match=r"rows gmp_atl and layer_-1: layers 9 and -1 may be one and the same"):
        rows("gmp_atl", "table4", layer=9)  # of a checkpoint that has not been read
    assert list(rows("gmp_atl", "table3", "open", "sisters", layer=9))


def test_clusters_of_a_row_s_own_beside_the_same_number_of_all(tmp_path):
    """Other centroids, and so other labels; their models must not have one name."""
    text = "t: {title: t, rows: {a: {title: a, scale: smallest}, b: {title: b, clusters: [%d]}}}"
    (tmp_path / "rows.yaml").write_text(text % 64)
    with pytest.raises(UserError, match="rows a and b: both predict 64 clusters of the same layer, but one of them"):
        choose_rows(read_rows(tmp_path / "rows.yaml", SCALES), ["t"])
    (tmp_path / "rows.yaml").write_text(text % 65)
    assert list(choose_rows(read_rows(tmp_path / "rows.yaml", SCALES), ["t"])) == ["a", "b"]


def test_single_scales_are_what_their_names_say():
    """Whatever the order and number of the experiment's scales."""

    def singles(*scales):
        tables = read_rows(CONFIGS / "ablations.yaml", scales)
        return {n: r.scales for n, r in choose_rows(tables, ["open"]).items() if n.endswith("_scale")}

    assert singles(256, 16, 64) == {"smallest_scale": (16,), "middle_scale": (64,), "largest_scale": (256,)}
    assert singles(32, 128) == {"smallest_scale": (32,), "largest_scale": (128,)}
    assert singles(1, 2, 3, 4) == {"smallest_scale": (1,), "largest_scale": (4,)}
    assert singles(50) == {}
    with pytest.raises(UserError, match="middle_scale: there is no middle among 2 scales"):
        choose_rows(read_rows(CONFIGS / "ablations.yaml", [32, 128]), ["middle_scale"])


def test_open_readings():
    variants = {name: row.variants() for name, row in rows("open").items()}
    assert variants["emotion_only"]["labels"] == "emotion_only.layer-3"
    assert variants["middle_scale"]["labels"] == "multitask.layer-3"  # clustered once, for all scales
    assert variants["middle_scale"]["stage2"] == "multitask.layer-3.k512.from_original.masked"
    assert variants["from_stage1"]["stage2"] == "multitask.layer-3.k64-512-4096.from_multitask.masked"
    assert variants["no_masking"]["stage2"] == "multitask.layer-3.k64-512-4096.from_original.no_masking"
    assert variants["hubert_labels"]["stage1"] is None
    assert variants["hubert_labels"]["labels"] == "original.layer-3"
    # stage 1's gender task does not matter where nothing of stage 1 is used
    assert len({v["stage2"] for v in variants.values()}) == len(variants)


def test_flesa_labels_with_the_model_of_its_first_half():
    """Which is among the rows, whether chosen or not; nothing of stage 1 is needed."""
    found = rows("gmp_atl", "flesa_mean_pooling", layer=-1, init_from="stage1")
    assert list(found) == ["gmp_atl", "flesa_mean_pooling", "flesa_adapted"]
    adapted, final = (found[name] for name in ("flesa_adapted", "flesa_mean_pooling"))
    first = "original.layer0.75.k500.from_original.flesa_pretraining"
    assert adapted.variants() == {
        "stage1": None, "labels": "original.layer0.75.k500", "stage2": first,
        "stage3": f"{first}.flesa_fine_tuning.mean_pooling",
    }  # fmt: skip
    assert adapted.labelled_by() is None
    second = "flesa_adapted.layer0.75.k50.from_original.flesa_pretraining"
    assert final.variants() == {
        "stage1": None, "labels": "flesa_adapted.layer0.75.k50", "stage2": second,
        "stage3": f"{second}.flesa_fine_tuning.mean_pooling",
    }  # fmt: skip
    assert final.labelled_by() == ("stage3", adapted.variants()["stage3"])
    assert list(rows("flesa")) == ["flesa", "flesa_adapted"]
    assert rows("flesa")["flesa"].variants()["stage2"] == second
    assert (adapted.scales, final.scales) == ((500,), (50,))


def test_gemo_clap_is_one_stage():
    found = {name: row.variants() for name, row in rows("gemo_clap", "gemo_clap_ml", "emo_clap").items()}
    assert {(v["stage1"], v["labels"], v["stage2"]) for v in found.values()} == {(None, None, None)}
    assert found["gemo_clap"]["stage3"] == "original.gemo_clap_fine_tuning"
    assert found["gemo_clap_ml"]["stage3"] == "original.gemo_clap_fine_tuning.gemo_clap_ml"


@pytest.mark.parametrize(
    "settings, message",
    [
        ("labels: stage4", "row x: labels=stage4: expected stage1, original or another row"),
        ("labels: x", "row x: labels=x: expected stage1, original or another row"),
        ("labels: y}, y: {title: y, labels: x", "row y: labels=x: expected stage1, original or another row"),
        ("stage5: y", "row x: .*stage5"),
        ("stage2: [masked, all_frames]", "row x, stage2: expected a configuration and a fragment at most"),
    ],
)
def test_rows_that_make_no_sense(settings, message, tmp_path):
    (tmp_path / "rows.yaml").write_text(f"t: {{title: t, rows: {{x: {{title: x, {settings}}}}}}}")
    with pytest.raises(UserError, match=message):
        choose_rows(read_rows(tmp_path / "rows.yaml", SCALES), ["x"])["x"].variants()


def test_every_configuration_and_fragment_is_there():
    for row in rows("table3", "table4", "open", "sisters").values():
        for stage in ("stage1", "stage2", "stage3"):
            whole, fragment = row.config(stage)
            assert whole is None or (CONFIGS / f"{whole}.yaml").is_file()
            assert (CONFIGS / "nano" / f"{(whole or stage).replace('/', '_')}.yaml").is_file()
            assert fragment is None or (CONFIGS / "ablation" / f"{fragment}.yaml").is_file()


@pytest.fixture
def experiment(tmp_path):
    made = Experiment("x", "emodb", "EMODB", "", "nano", SCALES, [1, 2], ["1", "2", "3"])
    made = made.with_rows(rows("table3"))
    made.write(tmp_path)
    return tmp_path, Experiment.read(tmp_path)


def finish(folder, artefact, marker, seconds):
    (folder / artefact).mkdir(parents=True)
    (folder / artefact / marker).touch()
    (folder / artefact / "time.tsv").write_text(f"s\th:m:s\n{seconds}\t0:00:00\n")


def test_progress_counts_shared_artefacts_once(experiment):
    folder, made = experiment
    state = progress(folder, made)
    # six runs of stage 1, labels, stage 2, and of four rows' stage 3
    assert state.total == {"stage1": 6, "labels": 6, "stage2": 6, "stage3": 24}
    assert describe(state) == "[0 of 42, time left not known yet]"


def test_progress_estimates_what_is_left_from_medians(experiment):
    folder, made = experiment
    for seconds, seed in ((100, 1), (300, 2)):
        finish(folder, f"fold1/seed{seed}/stage1/multitask", "done", seconds)
    finish(folder, "fold1/seed1/labels/multitask.layer-3", "done", 10)
    finish(folder, f"fold1/seed1/stage2/{METHOD}", "done", 60)
    finish(folder, "fold1/seed1/stage3/original.am_softmax", "result.json", 30)
    state = progress(folder, made)
    assert state.seconds_left() == 4 * 200 + 5 * 10 + 5 * 60 + 23 * 30
    assert describe(state, jobs=2) == "[5 of 42, about 15 min left]"
    finished = "fold1/seed2/stage3/original.am_softmax"
    assert sum(progress(folder, made, finished).done.values()) == 6


def test_a_folder_that_is_no_experiment(tmp_path):
    with pytest.raises(UserError, match="experiment.json is no experiment of the workflow .*make experiment"):
        Experiment.read(tmp_path)
