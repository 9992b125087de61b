"""Emotion over time: windows, and the files that other programs open."""

import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_plugin.errors import UserError
from gmp_plugin.timeline import (
    Envelope,
    Timeline,
    WindowedMean,
    Windows,
    bin_edges,
    write_audacity,
    write_csv,
    write_textgrid,
)
from gmp_plugin.timeline_plot import timeline_figure

NAMES = ["angry", "happy", 'say "so"']


def example(classes=(0, 0, 1, 1, 1, 2), hop=25, seconds=2.8):
    """A timeline of bins of half a second, sure to 60, 70, ... percent."""
    p = np.full((len(classes), 3), 0.1)
    for k, c in enumerate(classes):
        p[k, c] = 0.6 + 0.05 * k
    p /= p.sum(1, keepdims=True)
    envelope = np.stack([-np.ones(560), np.ones(560)], axis=1) * 0.3
    return Timeline(NAMES, bin_edges(len(classes), hop, seconds), p, Windows(100, hop), envelope)


@given(st.integers(1, 60), st.integers(1, 12), st.integers(0, 20), st.lists(st.integers(0, 60), max_size=5))
def test_each_bin_is_the_mean_of_the_frames_around_it(n, hop, wider, cuts):
    """Against the plain mean, however the frames arrive."""
    x = np.random.default_rng(n).standard_normal((n, 3))
    windows = Windows(hop + wider, hop)
    mean = WindowedMean(windows)
    parts = [mean.push(part) for part in np.split(x, sorted(min(c, n) for c in cuts))]
    found = np.concatenate([*parts, mean.finish()])
    expected = [x[max(0, a) : b].mean(0) for a, b in map(windows.frames, range(-(-n // hop)))]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_window_is_centred_on_its_bin():
    assert [Windows(100, 25).frames(k) for k in (0, 1, 10)] == [(-37, 63), (-12, 88), (213, 313)]
    assert [Windows(25, 25).frames(k) for k in (0, 1)] == [(0, 25), (25, 50)]


def test_seconds_become_frames_within_bounds():
    assert Windows.of(2.0, 0.5) == Windows() == Windows(100, 25)
    for window, hop in ((1, 2), (1, 0.01), (1e9, 1), (float("nan"), 1), (-1, -1)):
        with pytest.raises(UserError, match="expected a hop of at least 0.02 s"):
            Windows.of(window, hop)


def test_segments_tile_the_recording():
    segments = example().segments()
    assert [(s.start_s, s.end_s, s.emotion) for s in segments] == [
        (0.0, 1.0, "angry"), (1.0, 2.5, "happy"), (2.5, 2.8, 'say "so"'),
    ]  # fmt: skip
    assert segments[0].confidence == pytest.approx((0.6 / 0.8 + 0.65 / 0.85) / 2)


def test_the_table_has_a_line_per_bin():
    stream = io.StringIO()
    write_csv(example(), stream)
    rows = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert len(rows) == 6 and list(rows[0]) == ["start_s", "end_s", "emotion", "confidence", *NAMES]
    assert (rows[5]["start_s"], rows[5]["end_s"], rows[5]["emotion"]) == ("2.500", "2.800", 'say "so"')
    np.testing.assert_allclose(
        [[float(row[name]) for name in NAMES] for row in rows], example().probabilities, atol=1e-4
    )


def test_audacity_gets_a_label_per_segment():
    stream = io.StringIO()
    write_audacity(example(), stream)
    rows = [line.split("\t") for line in stream.getvalue().splitlines()]
    assert [(float(a), float(b)) for a, b, _ in rows] == [(0.0, 1.0), (1.0, 2.5), (2.5, 2.8)]
    assert rows[0][2] == "angry 76%"


def test_praat_gets_intervals_without_gaps():
    """Read as Praat's own text reader does: the values in order, whatever the words around them."""
    stream = io.StringIO()
    write_textgrid(example(), stream)
    text = stream.getvalue().split("\n", 3)[3]
    text = re.sub(r"\[\d*\]", "", text)  # Praat skips what is in brackets
    values = re.findall(r'"(?:[^"]|"")*"|<exists>|(?<![\w.])-?\d+(?:\.\d+)?', text)
    assert values[:4] == ["0", "2.800000", "<exists>", "2"]
    place = 4
    for name in ('"emotion"', '"confidence"'):
        kind, tier, low, high, n = values[place : place + 5]
        assert (kind, tier, float(low), float(high), n) == ('"IntervalTier"', name, 0.0, 2.8, "3")
        rows = np.array(values[place + 5 : place + 14], dtype=object).reshape(3, 3)
        place += 14
        assert [float(x) for x in rows[:, 0]] == [0.0, 1.0, 2.5] and [float(x) for x in rows[:, 1]] == [1.0, 2.5, 2.8]
        assert rows[2, 2] == ('"say ""so"""' if name == '"emotion"' else rows[2, 2])
    assert place == len(values)


@given(st.integers(1, 2000), st.lists(st.integers(0, 2000), max_size=4))
def test_the_envelope_is_the_lowest_and_highest_of_every_five_milliseconds(n, cuts):
    wave = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    envelope = Envelope()
    list(envelope.watch(np.split(wave, sorted(min(c, n) for c in cuts))))
    expected = [(wave[i : i + 80].min(), wave[i : i + 80].max()) for i in range(0, n, 80)]
    np.testing.assert_array_equal(envelope.finish(), expected)


@pytest.mark.parametrize(("seconds", "n_bins"), [(0.3, 1), (2.8, 6), (3 * 3600.0, 21_600)])
def test_the_picture_shows_waveform_curves_and_decision(tmp_path, seconds, n_bins):
    """Of a syllable and of hours; and the curves are the probabilities."""
    timeline = example(np.arange(n_bins) // 50 % 3, hop=25, seconds=seconds)
    figure = timeline_figure(timeline, "a.wav: angry")
    figure.savefig(tmp_path / "a.png", dpi=50)
    wave, curves, decision = figure.axes
    assert wave.get_ylabel() == "waveform" and len(curves.lines) == 3
    step = -(-n_bins // 400)  # hours are drawn as means, to be readable
    drawn = [timeline.probabilities[i : i + step, 1].mean() for i in range(0, n_bins, step)]
    np.testing.assert_allclose(curves.lines[1].get_ydata()[1:-1], 100 * np.array(drawn))
    assert ("means over 27 s are drawn" in decision.get_xlabel()) == (n_bins > 400)
    assert curves.get_xlim() == (0, seconds)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == NAMES
    assert len({line.get_linestyle() for line in curves.lines}) == 3  # told apart without colours
    ticks = [text.get_text() for text in decision.get_xticklabels()]
    assert ("1:00:00" in ticks) == (seconds > 3600)
