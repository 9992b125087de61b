"""Long recordings in overlapping chunks: every frame once, whatever pieces the audio comes in."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmp_plugin import frames
from gmp_plugin.chunks import Chunking
from gmp_plugin.errors import UserError

SMALL = Chunking(whole=15, core=10, context=3)


@given(st.integers(0, 400))
def test_cores_tile_the_recording_and_have_context_on_both_sides(n):
    spans = SMALL.spans(n)
    assert [f for s in spans for f in range(s.core_start, s.core_stop)] == list(range(n))
    if n <= SMALL.whole:
        assert len(spans) == (n > 0)
        return
    for s in spans[:-1]:
        assert s.core_stop - s.core_start == SMALL.core and s.stop == s.core_stop + SMALL.context <= n
    assert SMALL.core / 2 <= spans[-1].core_stop - spans[-1].core_start <= SMALL.last_core
    assert [s.start for s in spans] == [0] + [s.core_start - SMALL.context for s in spans[1:]]


@settings(deadline=None)
@given(st.integers(0, 60 * 320), st.lists(st.integers(0, 60 * 320), max_size=6))
def test_audio_in_blocks_is_cut_where_the_loaded_file_is(n, cuts):
    wave = np.arange(n, dtype=np.float32)  # every sample tells its place
    found = list(SMALL.cut(np.split(wave, sorted(min(c, n) for c in cuts))))
    spans = SMALL.spans(frames.n_frames(n))
    assert len(found) == len(spans)
    for chunk, span in zip(found, spans, strict=True):
        end = n if span is spans[-1] else span.start * frames.HOP + frames.n_samples(span.stop - span.start)
        np.testing.assert_array_equal(chunk.samples, wave[span.start * frames.HOP : end])
        assert (chunk.skip, chunk.n_frames) == (span.core_start - span.start, span.core_stop - span.core_start)
        assert frames.n_frames(len(chunk.samples)) == span.stop - span.start


@given(st.integers(1, 40 * 320))
def test_a_timeline_is_of_cores_and_the_decision_stays(n):
    wave = np.arange(n, dtype=np.float32)
    plain, both = list(SMALL.cut([wave])), list(SMALL.cut([wave], timeline=True))
    decided = [c for c in both if c.for_decision]
    assert [(c.samples.tolist(), c.skip, c.n_frames) for c in decided] == [
        (c.samples.tolist(), c.skip, c.n_frames) for c in plain
    ]
    total = frames.n_frames(n)
    drawn = [c for c in both if c.for_timeline]
    assert len(drawn) == len(SMALL.cores(total)) and sum(c.n_frames for c in drawn) == total
    for chunk, span in zip(drawn, SMALL.cores(total), strict=True):
        assert chunk.samples[0] == span.start * frames.HOP and chunk.skip == span.core_start - span.start
        assert frames.n_frames(len(chunk.samples)) == span.stop - span.start


def test_hours_are_never_held():
    """Of audio that comes by the second, a chunk is cut as soon as it can be."""
    read = []

    def blocks():
        for second in range(3600):
            read.append(second)
            yield np.zeros(16_000, dtype=np.float32)

    for k, chunk in enumerate(Chunking().cut(blocks())):
        assert len(chunk.samples) <= 15 * 16_000
        assert len(read) - 2 * k <= 17


def test_what_is_computed_whole_is_a_choice_within_bounds():
    assert len(Chunking.of(60).spans(3000)) == 1 and len(Chunking().spans(3000)) == 30
    for seconds in (1, 1e9, float("nan")):
        with pytest.raises(UserError, match="expected 3 to 300 s"):
            Chunking.of(seconds)
