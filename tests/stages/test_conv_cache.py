"""Training that keeps the features of frozen convolutions is the training that computes them anew."""

from training import assert_same, command, final_state, run

from gmp_plugin.evaluation import EmotionClassifier


def test_a_cache_and_a_restart_change_no_bit(fold, tmp_path):
    """Short clips are whole and kept, long ones are cropped at random; the second run finds the first one's disk."""

    def train(name, updates, *more):
        settings = ["model.freeze_feature_extractor=true", "lr_scheduler.total_num_update=8", *more]
        return run(*command("stage1", fold, tmp_path / name, updates, *settings))

    assert "are computed once" not in train("anew", 8, "task.conv_cache_gb=0")
    keep = f"task.conv_cache_dir={tmp_path / 'conv'}"
    assert "are computed once and kept: up to 3.0 GB in memory, all in" in train("kept", 4, keep)
    assert len(list((tmp_path / "conv").rglob("*.safetensors"))) == 4  # under 6000 samples; every other clip is cropped
    train("kept", 8, keep)
    for name in ("model", "last_optimizer_state"):
        assert_same(final_state(tmp_path / "kept")[name], final_state(tmp_path / "anew")[name], name)
    loaded = EmotionClassifier.load(tmp_path / "kept" / "checkpoint_last.pt").model
    assert loaded.hubert.frozen and loaded.hubert.conv_cache is None  # reads every recording once
