"""A sharded dump: the same bytes whoever computes, in whatever order, and however often it is killed."""

import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import tool
from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from gmp_plugin import labels
from gmp_plugin.errors import UserError
from gmp_plugin.label_parts import divide
from gmp_plugin.manifest import Manifest
from gmp_plugin.shards import rank_and_nshard, share

KILLS = int(os.environ.get("KILLS", 5))


@pytest.fixture
def corpus(fold, stock_checkpoint, tmp_path):
    """48 utterances with k-means at 4 and 16: `dump(out, *options)` labels them, in 14 parts or so."""
    _, checkpoint = stock_checkpoint()
    train = Manifest.read(fold / "train.tsv")
    manifest = tmp_path / "train.tsv"
    Manifest(train.root, 6 * train.paths, 6 * train.n_samples).write(manifest)
    km = tmp_path / "km.safetensors"
    common = ["--manifest", str(manifest), "--checkpoint", str(checkpoint)]
    tool("learn_kmeans")([*common, "--scales", "4", "16", "--kmeans", str(km)])

    def dump(out, *options):
        tool("dump_km_label")([*common, "--kmeans", str(km), "--out", str(out), "--part-seconds", "1.5", *options])

    def files(out):
        return {p.name: p.read_bytes() for p in Path(out).glob("*") if p.is_file()}

    return SimpleNamespace(dump=dump, files=files, common=common, km=km, manifest=Manifest.read(manifest))


@pytest.fixture
def whole(corpus, tmp_path):
    """The files of one undisturbed run."""
    corpus.dump(tmp_path / "whole")
    names = {"train.4.km", "train.16.km", "dict.4.km.txt", "dict.16.km.txt", "provenance.json", "train.labels.json"}
    assert set(files := corpus.files(tmp_path / "whole")) == names
    return files


@pytest.mark.parametrize("order", [[0], [2, 0, 1], [4, 3, 2, 1, 0]])
def test_same_bytes_whatever_the_shards_their_order_and_the_workers(corpus, whole, order, tmp_path):
    for rank in order:
        assert not (tmp_path / "out" / "train.4.km").exists()
        corpus.dump(tmp_path / "out", "--nshard", str(len(order)), "--rank", str(rank), "--workers", "3")
    assert corpus.files(tmp_path / "out") == whole
    assert not list((tmp_path / "out").glob(".*"))


def test_parts_of_another_size_give_the_same_labels(corpus, whole, tmp_path):
    corpus.dump(tmp_path / "out", "--part-seconds", "600")
    assert corpus.files(tmp_path / "out") == whole


def test_ranks_of_torchrun_and_slurm(corpus, whole, tmp_path, monkeypatch):
    for number, (rank, size) in enumerate((("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"))):
        with monkeypatch.context() as environ:
            environ.setenv(size, "2")
            for value in "10":
                environ.setenv(rank, value)
                corpus.dump(tmp_path / f"out{number}")
        assert corpus.files(tmp_path / f"out{number}") == whole


def test_merge_names_what_is_missing_and_who_computes_it(corpus, whole, tmp_path):
    out = tmp_path / "out"
    corpus.dump(out, "--nshard", "3", "--rank", "0")
    corpus.dump(out, "--nshard", "3", "--rank", "2")
    with pytest.raises(
        UserError,
        match=r"train: \d of \d+ parts are missing in .*/\.train\.parts: 00000\d\.safetensors \(lines \d+ to \d+ of "
        r".*train\.tsv\), .*; run again rank 1 of --nshard 3",
    ):
        corpus.dump(out, "--merge", "--nshard", "3")
    assert not list(out.glob("*.km"))
    corpus.dump(out, "--nshard", "2", "--rank", "0")  # the parts do not mind how many ranks there are
    corpus.dump(out, "--nshard", "2", "--rank", "1")
    assert corpus.files(out) == whole


def test_finished_parts_are_kept_and_damaged_ones_computed_again(corpus, whole, tmp_path):
    out = tmp_path / "out"
    corpus.dump(out, "--nshard", "2", "--rank", "0")
    parts = sorted((out / ".train.parts").iterdir())
    kept, damaged = parts[0], parts[1]
    before = kept.stat()
    damaged.write_bytes(damaged.read_bytes()[:-5])
    corpus.dump(out, "--nshard", "2", "--rank", "0")
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    corpus.dump(out, "--nshard", "2", "--rank", "1")
    assert corpus.files(out) == whole


def test_parts_of_other_centroids_are_refused(corpus, tmp_path):
    out, other = tmp_path / "out", tmp_path / "other.safetensors"
    corpus.dump(out, "--nshard", "2", "--rank", "0")
    tool("learn_kmeans")([*corpus.common, "--scales", "4", "16", "--seed", "2", "--kmeans", str(other)])
    for options, message in (
        (["--kmeans", str(other)], "out holds labels of other centroids; give another --out, or --force"),
        (["--part-seconds", "7"], "was left by a run with other .* part size"),
    ):
        with pytest.raises(UserError, match=message):
            corpus.dump(out, *options)
    corpus.dump(out, "--kmeans", str(other), "--force")
    corpus.dump(tmp_path / "fresh", "--kmeans", str(other))
    assert corpus.files(out) == corpus.files(tmp_path / "fresh")


def test_merge_with_other_options_than_the_ranks_had(corpus, whole, tmp_path):
    out = tmp_path / "out"
    for rank in "01":
        corpus.dump(out, "--nshard", "2", "--rank", rank, "--dtype", "bfloat16", *(["--part-seconds", "9"] * int(rank)))
        shutil.move(out, tmp_path / rank)
    shutil.move(tmp_path / "0", out)
    merge = ["--kmeans", str(corpus.km), "--manifest", corpus.common[1], "--out", str(out), "--merge"]
    with pytest.raises(UserError, match="holds parts of other .* --dtype or --part-seconds; give --merge the options"):
        tool("dump_km_label")([*merge, "--part-seconds", "1.5"])
    with pytest.raises(UserError, match=r"parts are missing .* run again rank 1 of --nshard 2"):
        tool("dump_km_label")([*merge, "--part-seconds", "1.5", "--dtype", "bfloat16", "--nshard", "2"])


def test_what_a_killed_merge_left_goes_with_the_next_run(corpus, whole, tmp_path):
    out = tmp_path / "whole"
    (out / ".train.parts.merged").mkdir()
    (out / ".train.4.km.123-abc.tmp").write_text("half")
    corpus.dump(out)
    assert corpus.files(out) == whole and not list(out.glob(".*"))


def test_killed_at_random_moments_the_labels_are_those_of_an_undisturbed_run(corpus, whole, tmp_path, monkeypatch):
    """`KILLS=20 pytest` for more. A moment is the n-th Python call while labelling, so that short steps, such as the
    writing of the last files, are hit as well."""
    fork, rng, out = multiprocessing.get_context("fork"), random.Random(0), tmp_path / "out"
    label, calls = labels.label, multiprocessing.Value("i")

    def run(moment, *options):
        def count(frame, event, argument):
            calls.value += 1
            if calls.value == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def profiled(*args, **kwargs):
            tqdm.set_lock(threading.RLock())  # its own is shared by forks, and would die locked
            sys.setprofile(count)
            label(*args, **kwargs)

        calls.value = 0
        monkeypatch.setattr(labels, "label", profiled)
        process = fork.Process(target=corpus.dump, args=(out, *options))
        process.start()
        process.join()
        return process.exitcode

    ranks = [[], ["--nshard", "2", "--rank", "0"], ["--nshard", "2", "--rank", "1"]]
    assert run(0) == 0
    duration, killed = calls.value, 0
    while killed < KILLS:
        if (out / "train.labels.json").exists():  # finished: once more from the start
            shutil.rmtree(out)
        killed += run(rng.randrange(duration), *rng.choice(ranks)) == -signal.SIGKILL
        for name, content in corpus.files(out).items():
            assert name.startswith(".") or content == whole[name], f"{name} is not whole"
    for options in ranks:
        assert run(0, *options) == 0
    assert {name: content for name, content in corpus.files(out).items() if not name.startswith(".")} == whole
    assert not list(out.glob(".train*"))


@given(
    n_samples=st.lists(st.integers(400, 10**6), min_size=1, max_size=60),
    seconds=st.floats(0.1, 100),
    nshard=st.integers(1, 20),
)
def test_parts_and_shares_cover_every_utterance_once_in_order(n_samples, seconds, nshard):
    parts = divide(Manifest("/", tuple(map(str, range(len(n_samples)))), tuple(n_samples)), seconds)
    assert all(len(part) for part in parts)
    shares = [part for rank in range(nshard) for part in share(len(parts), rank, nshard)]
    assert np.concatenate([list(parts[i]) for i in shares]).tolist() == list(range(len(n_samples)))


@pytest.mark.parametrize(
    "arguments, environ, message",
    [
        ((1, None), {}, "--rank and --nshard go together"),
        ((2, 2), {}, "rank 2 of 2; expected 0 <= rank < nshard"),
        ((None, None), {"RANK": "3", "WORLD_SIZE": "2"}, "RANK and WORLD_SIZE: rank 3 of 2"),
    ],
)
def test_impossible_ranks(arguments, environ, message):
    with pytest.raises(UserError, match=message):
        rank_and_nshard(*arguments, environ)


def test_given_ranks_come_before_the_launchers():
    assert rank_and_nshard(1, 4, {"RANK": "0", "WORLD_SIZE": "2"}) == (1, 4)
    assert rank_and_nshard(None, None, {"RANK": "0", "WORLD_SIZE": "2", "SLURM_PROCID": "7"}) == (0, 2)
    assert rank_and_nshard(environ={}) == (0, 1)
    # A batch script without srun is alone, whatever it asked for.
    assert rank_and_nshard(environ={"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == (0, 1)
