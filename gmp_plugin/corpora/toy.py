"""A synthetic corpus in IEMOCAP's shape, to try the software where no real corpus is at hand.

Voices are made by source and filter: glottal pulses with jitter and shimmer, shaped by a spectral
tilt, through five formants that move from vowel to vowel; noise bursts and pauses in between.
Gender sets pitch and vocal-tract length. Emotion shifts pitch level and range, tempo, energy and
tilt, by amounts that speakers and single utterances blur, so that classes overlap as they do in
real speech. It is NOT human speech, and results on it say nothing about people.

Everything is drawn from generators seeded by (seed, name): the same seed gives the same bytes.
"""

import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import lfilter

from ..frames import SAMPLE_RATE

N_SESSIONS = 5
DIALOGS = ("F_impro01", "F_impro02", "F_script01_1", "M_impro01", "M_impro02", "M_script01_1")
MEAN_SECONDS = 2.28  # of an utterance, measured
README_TITLE = "SYNTHETIC speech-like audio, not human speech"
README = f"""{README_TITLE}

Made by make_toy_corpus.py in the shape of IEMOCAP, to try the software without a real corpus.
The voices are computed (glottal pulses through formant filters), the labels are what the
computation was told. Accuracies on it say that the software runs, nothing else.
"""


@dataclass(frozen=True)
class Style:
    """What an emotion does to a voice: mean shifts against neutral.

    pitch: level in semitones; pitch_range: factor on the contour; tempo: factor on the syllable
    rate; level: decibels; tilt: brightness in units of the speakers' own spread; vad: valence,
    activation and dominance, 1 to 5.
    """

    share: float
    pitch: float
    pitch_range: float
    tempo: float
    level: float
    tilt: float
    vad: tuple[float, float, float]


# The first five are IEMOCAP's labels of the four classes; `share` is flatter than IEMOCAP's own.
STYLES = {
    "neu": Style(0.23, 0.0, 1.0, 1.00, 0.0, 0.0, (3.0, 2.5, 3.0)),
    "hap": Style(0.08, 3.8, 1.8, 1.12, 2.0, 0.3, (4.2, 3.1, 3.2)),
    "exc": Style(0.14, 5.0, 2.0, 1.18, 3.5, 0.6, (4.2, 3.8, 3.4)),
    "ang": Style(0.20, 1.8, 1.0, 1.14, 7.0, 2.6, (1.8, 3.9, 4.1)),
    "sad": Style(0.20, -1.8, 0.55, 0.74, -4.5, -1.6, (2.2, 2.1, 2.5)),
    "fru": Style(0.06, 1.0, 1.1, 1.02, 2.5, 0.9, (2.2, 3.1, 3.4)),
    "xxx": Style(0.06, 1.2, 1.2, 1.00, 1.0, 0.3, (2.8, 2.9, 3.0)),
    "sur": Style(0.01, 5.0, 2.0, 1.05, 3.0, 0.8, (3.3, 3.6, 3.0)),
    "fea": Style(0.01, 3.5, 0.9, 1.15, 0.5, 0.2, (2.2, 3.4, 2.2)),
    "oth": Style(0.01, 0.5, 1.1, 0.95, 0.5, 0.1, (2.8, 2.7, 3.0)),
}
CLASS_LABELS = (("neu",), ("hap", "exc"), ("ang",), ("sad",))

VOTES = {
    "neu": "Neutral",
    "hap": "Happiness",
    "exc": "Excited",
    "ang": "Anger",
    "sad": "Sadness",
    "fru": "Frustration",
    "xxx": "Other",
    "sur": "Surprise",
    "fea": "Fear",
    "oth": "Other",
}

# Formants of a man's vocal tract in Hz (after Peterson and Barney 1952); F4 and F5 stay.
VOWELS = np.array(
    [[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240], [500, 1500, 2500]],
    dtype=float,
)
HIGH_FORMANTS = (3400.0, 4300.0)
BANDWIDTHS = np.array([80.0, 100.0, 140.0, 220.0, 300.0])
BLOCK = 128  # samples over which the formants stand still: 8 ms


@dataclass(frozen=True)
class Turn:
    """One utterance to be made."""

    session: int
    dialog: str
    name: str
    label: str


@dataclass(frozen=True)
class Voice:
    """What stays the same in all utterances of a speaker."""

    pitch_hz: float
    formant_scale: float
    syllables_per_second: float
    level_db: float
    tilt: float
    pitch_range: float
    jitter: float
    breath: float

    @classmethod
    def of(cls, speaker: str, seed: int) -> "Voice":
        rng = _generator(seed, speaker)
        female = speaker[-1] == "F"
        return cls(
            pitch_hz=(195.0 if female else 115.0) * 2 ** rng.normal(0, 0.09),
            formant_scale=(1.16 if female else 1.0) * np.exp(rng.normal(0, 0.03)),
            syllables_per_second=4.6 * np.exp(rng.normal(0, 0.08)),
            level_db=rng.normal(0, 1.8),
            tilt=rng.normal(0, 0.5),
            pitch_range=np.exp(rng.normal(0, 0.15)),
            jitter=rng.uniform(0.004, 0.012),
            breath=rng.uniform(0.01, 0.04),
        )


def plan(hours: float, seed: int) -> list[Turn]:
    """The utterances of about `hours` of audio, in order of session and dialog.

    However few hours are asked for, each speaker has every class and each session an utterance
    that the four classes do not take.
    """
    n_turns = round(hours * 3600 / MEAN_SECONDS / N_SESSIONS)
    shares = np.array([style.share for style in STYLES.values()])
    turns = []
    for session in range(1, N_SESSIONS + 1):
        rng = _generator(seed, f"Session{session}")
        labels = [(letter, rng.choice(names)) for letter in "FM" for names in CLASS_LABELS] + [("F", "fru")]
        more = max(0, n_turns - len(labels))
        drawn = rng.choice(list(STYLES), more, p=shares / shares.sum())
        labels += zip(rng.choice(["F", "M"], more), drawn, strict=True)
        labels = [labels[i] for i in rng.permutation(len(labels))]
        dialogs = [f"Ses{session:02}{name}" for name in DIALOGS[: np.clip(len(labels) // 8, 2, len(DIALOGS))]]
        scenes = {dialog: [] for dialog in dialogs}
        for letter in "FM":  # both speakers have turns in every dialog
            own = [label for other, label in labels if other == letter]
            for position, label in enumerate(own):
                scenes[dialogs[position * len(dialogs) // len(own)]].append((letter, label))
        for dialog, scene in scenes.items():
            counters = Counter()
            for letter, label in rng.permutation(scene):
                turns.append(Turn(session, dialog, f"{dialog}_{letter}{counters[letter]:03}", str(label)))
                counters[letter] += 1
    return turns


def write_corpus(root, hours: float, seed: int, progress=lambda turns: turns) -> float:
    """Write the tree under `root` and return its length in seconds. `progress` wraps the list of
    turns (tqdm)."""
    root = Path(root)
    seconds, evaluations = 0.0, {}
    for turn in progress(plan(hours, seed)):
        voice = Voice.of(f"Ses{turn.session:02}{turn.name.split('_')[-1][0]}", seed)
        samples = synthesise(voice, STYLES[turn.label], _generator(seed, turn.name))
        session = root / f"Session{turn.session}"
        path = session / "sentences" / "wav" / turn.dialog / f"{turn.name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, SAMPLE_RATE, subtype="PCM_16")
        length = len(samples) / SAMPLE_RATE
        evaluation = evaluations.setdefault(session / "dialog" / "EmoEvaluation" / f"{turn.dialog}.txt", [])
        evaluation.append((turn, length, _generator(seed, turn.name + " votes")))
        seconds += length
    for path, entries in evaluations.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_evaluation(entries), encoding="ascii", newline="\n")
    (root / "README.txt").write_text(README, encoding="ascii", newline="\n")
    return seconds


def synthesise(voice: Voice, style: Style, rng: np.random.Generator) -> np.ndarray:
    """One utterance, `(N,)` int16 at 16 kHz, about 1 to 4 s."""
    seconds = float(np.clip(np.exp(rng.normal(np.log(2.1), 0.4)), 0.9, 5.0))
    tempo = style.tempo * np.exp(rng.normal(0, 0.07))
    starts, lengths = _syllables(seconds, voice.syllables_per_second * tempo, rng)
    n = int(seconds * SAMPLE_RATE)
    time = np.arange(n) / SAMPLE_RATE
    middles = starts + lengths / 2

    pitch = _pitch(time, middles, voice, style, rng)
    source = _glottis(pitch, voice, rng) + voice.breath * rng.standard_normal(n)
    tilt = voice.tilt + style.tilt + rng.normal(0, 0.6)
    source = lfilter([1.0], [1.0, -1 / (1 + np.exp(0.9 * tilt - 2.2))], source)  # brighter = pole nearer 0
    source = lfilter([1.0, -0.97], [1.0], source)  # radiation at the lips

    loudness = _envelope(time, starts, lengths, rng)
    voiced = _formants(source * loudness, middles, voice, rng)
    voiced *= 1 / np.sqrt(np.mean(voiced**2) + 1e-12)
    level = voice.level_db + style.level + rng.normal(0, 2.0)
    sound = voiced + _bursts(n, starts, rng)
    # -36 dBFS in the mean: loud, peaky utterances still fit.
    sound = sound * 10 ** ((level - 36) / 20) + 10 ** (-68 / 20) * rng.standard_normal(n)
    return np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)


def _syllables(seconds: float, rate: float, rng) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of syllables in seconds, `(S,)` each, with gaps and some pauses."""
    n = int(seconds * rate * 1.5) + 4
    lengths = np.exp(rng.normal(np.log(0.72), 0.22, n)) / rate
    gaps = np.exp(rng.normal(np.log(0.24), 0.35, n)) / rate
    gaps += (rng.random(n) < 0.10) * rng.uniform(0.12, 0.40, n)
    first = rng.uniform(0.05, 0.15)
    starts = first + np.concatenate([[0], np.cumsum(lengths + gaps)[:-1]])
    inside = starts + lengths < seconds - 0.05
    inside[0] = True
    return starts[inside], lengths[inside]


def _pitch(time, middles, voice: Voice, style: Style, rng) -> np.ndarray:
    """Fundamental frequency in Hz, `(N,)`: declination and an accent on each syllable."""
    level = style.pitch + rng.normal(0, 1.0)
    width = 1.7 * voice.pitch_range * style.pitch_range * np.exp(rng.normal(0, 0.25))
    accents = width * rng.normal(0, 1, len(middles)) + np.linspace(0.6, -0.6, len(middles)) * width
    # A contour is slow: every 100th sample is enough to smooth it over 60 ms.
    coarse_time = time[::100]
    smooth = np.hanning(11) / np.hanning(11).sum()
    contour = np.convolve(np.pad(np.interp(coarse_time, middles, accents), 5, mode="edge"), smooth, mode="valid")
    contour = np.interp(time, coarse_time, contour)
    return voice.pitch_hz * 2 ** ((level + contour) / 12)


def _glottis(pitch, voice: Voice, rng) -> np.ndarray:
    """Glottal flow derivative, `(N,)`: pulses, each placed between two samples, low-pass filtered."""
    n = len(pitch)
    phase = np.cumsum(pitch / SAMPLE_RATE)
    periods = np.arange(1, int(phase[-1]))
    instants = np.interp(periods, phase, np.arange(n))
    instants += voice.jitter * rng.standard_normal(len(periods)) * SAMPLE_RATE / pitch[instants.astype(int)]
    instants = np.clip(instants, 0, n - 2)
    strength = 1 + 0.06 * rng.standard_normal(len(periods))
    whole = instants.astype(int)
    part = instants - whole
    pulses = np.bincount(whole, strength * (1 - part), n) + np.bincount(whole + 1, strength * part, n)
    return lfilter([1.0], [1.0, -0.90], pulses - np.mean(pulses))


def _envelope(time, starts, lengths, rng) -> np.ndarray:
    """Loudness of the voiced part, `(N,)`: one hump per syllable, falling slowly over the utterance."""
    strength = np.exp(rng.normal(0, 0.25, len(starts))) * np.linspace(1.1, 0.8, len(starts))
    index = np.clip(np.searchsorted(starts, time, side="right") - 1, 0, None)
    inside = (time - starts[index]) / lengths[index]
    hump = np.where((inside > 0) & (inside < 1), np.sin(np.pi * np.clip(inside, 0, 1)) ** 0.7, 0.0)
    return hump * strength[index]


def _formants(source, middles, voice: Voice, rng) -> np.ndarray:
    """`source` `(N,)` through five resonances that move from vowel to vowel."""
    n = len(source)
    targets = VOWELS[rng.integers(len(VOWELS), size=len(middles))] * np.exp(rng.normal(0, 0.03, (len(middles), 3)))
    centres = (np.arange(-(-n // BLOCK)) + 0.5) * BLOCK / SAMPLE_RATE
    moving = np.stack([np.interp(centres, middles, targets[:, k]) for k in range(3)], axis=1)
    fixed = np.broadcast_to(HIGH_FORMANTS, (len(centres), 2))
    frequencies = np.minimum(np.concatenate([moving, fixed], axis=1) * voice.formant_scale, 0.45 * SAMPLE_RATE)
    radius = np.exp(-np.pi * BANDWIDTHS / SAMPLE_RATE)
    denominators = np.ones((len(centres), 1))
    for k in range(5):
        pole = np.stack(
            [
                np.ones(len(centres)),
                -2 * radius[k] * np.cos(2 * np.pi * frequencies[:, k] / SAMPLE_RATE),
                np.full(len(centres), radius[k] ** 2),
            ],
            axis=1,
        )
        product = np.zeros((len(centres), denominators.shape[1] + 2))
        for shift in range(3):
            product[:, shift : shift + denominators.shape[1]] += pole[:, shift : shift + 1] * denominators
        denominators = product
    gains = denominators.sum(axis=1)  # response 1 at 0 Hz, as a tube has
    result, state = np.empty(n), np.zeros(10)
    for block, (denominator, gain) in enumerate(zip(denominators, gains, strict=True)):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        result[part], state = lfilter([gain], denominator, source[part], zi=state)
    return result


def _bursts(n: int, starts, rng) -> np.ndarray:
    """Unvoiced consonants, `(N,)`: coloured noise just before some of the syllables."""
    result = np.zeros(n)
    for start in starts[rng.random(len(starts)) < 0.6]:
        length = int(rng.uniform(0.03, 0.10) * SAMPLE_RATE)
        frequency, radius = rng.uniform(2200, 6000), rng.uniform(0.75, 0.92)
        noise = rng.standard_normal(length) * np.hanning(length)
        noise = lfilter([1.0], [1, -2 * radius * np.cos(2 * np.pi * frequency / SAMPLE_RATE), radius**2], noise)
        noise *= rng.uniform(0.10, 0.35) / (np.std(noise) + 1e-12)
        begin = max(0, int(start * SAMPLE_RATE) - length)
        end = min(n, begin + length)
        result[begin:end] += noise[: end - begin]
    return result


def _evaluation(entries) -> str:
    """A label file as IEMOCAP has them, from `(turn, seconds, generator)`."""
    lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    clock = 5.0
    for turn, seconds, rng in entries:
        clock += rng.uniform(0.2, 2.0)
        votes = np.clip(np.round(np.array(STYLES[turn.label].vad) + rng.normal(0, 0.6, (3, 3))), 1, 5)
        mean = ", ".join(f"{value:.4f}" for value in votes.mean(axis=0))
        lines.append(f"[{clock:.4f} - {clock + seconds:.4f}]\t{turn.name}\t{turn.label}\t[{mean}]")
        lines += [f"C-E{k}:\t{VOTES[turn.label]};\t()" for k in (2, 3, 4)]
        lines += [f"A-E{k}:\tval {v:.0f}; act {a:.0f}; dom  {d:.0f};\t()" for k, (v, a, d) in enumerate(votes, start=2)]
        lines.append("")
        clock += seconds
    return "\n".join(lines) + "\n"


def _generator(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
