"""`model.freeze_finetune_updates`: the head learns alone at first, as in fairseq's fine-tuning of HuBERT."""

import pytest
from training import assert_same, command, final_state, on_two_ranks, run


def settings(data, save_dir, updates):
    """Four updates of the head alone, of six."""
    more = ["model.freeze_finetune_updates=4", "lr_scheduler.total_num_update=6"]
    return command("stage3", data, save_dir, updates, *more)


def weights(save_dir):
    """Of HuBERT, and of what is on it."""
    model = final_state(save_dir)["model"]
    hubert = {name: x for name, x in model.items() if name.startswith("hubert.")}
    return hubert, {name: x for name, x in model.items() if name not in hubert}


def changed(before, after):
    return {name for name in before if not before[name].equal(after[name])}


def test_hubert_stays_as_it_is_and_then_learns(fold, tmp_path):
    """On one process, restarted twice, and on two."""
    found = {}
    for updates in (2, 4, 6):
        run(*settings(fold, tmp_path / "parts", updates))
        found[updates] = weights(tmp_path / "parts")
    (hubert, head), (still, moved), (learned, _) = found.values()
    assert not changed(hubert, still)
    assert changed(head, moved) == set(head)
    assert any("self_attn" in name for name in changed(still, learned))

    run(*settings(fold, tmp_path / "whole", 6))
    for name in ("model", "last_optimizer_state"):
        assert_same(final_state(tmp_path / "parts")[name], final_state(tmp_path / "whole")[name], name)


def updates_of_adam(save_dir):
    """As many as it counts, of each parameter."""
    return [int(state["step"]) for state in final_state(save_dir)["last_optimizer_state"]["state"].values()]


@pytest.mark.parametrize("how", ["two ranks", "bf16"])
def test_adam_begins_when_hubert_does(how, fold, tmp_path):
    """Where what is frozen has gradients of zeros: counted, they would make the first updates of HuBERT too large."""

    def train(updates):
        # A layer that is left out begins later.
        arguments = [*settings(fold, tmp_path, updates), "++model.hubert.encoder_layerdrop=0"]
        return run(*arguments, "common.bf16=true") if how == "bf16" else on_two_ranks(arguments)

    train(2)
    hubert, _ = weights(tmp_path)
    train(4)
    assert not changed(hubert, weights(tmp_path)[0])
    head = updates_of_adam(tmp_path)  # what it has not changed is not in there
    assert set(head) == {4} and len(head) == len(weights(tmp_path)[1])
    train(6)
    steps = updates_of_adam(tmp_path)
    assert set(steps) == {2, 6} and steps.count(6) == len(head)
