"""Write voice/test_data/vowel.pcm: an "ee" between two silences, 16 kHz, 16 bit, one channel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

RATE = 16000
PITCH = 160
FORMANTS = ((300, 60), (2300, 100), (3000, 150))  # of an "ee": where, and how wide, in Hz
SILENCE, VOWEL = 0.5, 0.8  # seconds


def vowel() -> np.ndarray:
    """Return a pulse with a wavering pitch through three resonances, swelling and fading."""
    time = np.arange(int(RATE * VOWEL)) / RATE
    pitch = PITCH * (1 + 0.08 * np.sin(2 * np.pi * 3 * time))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    sound = np.sum([np.cos(k * phase) / k for k in range(1, 40)], axis=0)
    for frequency, width in FORMANTS:
        sound = resonated(sound, frequency, width)
    swell = 0.15 + 0.85 * (0.5 - 0.5 * np.cos(2 * np.pi * 4 * time))
    return np.asarray(0.5 * sound / np.abs(sound).max() * swell)


def resonated(sound: np.ndarray, frequency: float, width: float) -> np.ndarray:
    """Return ``sound`` through a resonance of two poles."""
    radius = math.exp(-math.pi * width / RATE)
    first, second = -2 * radius * math.cos(2 * math.pi * frequency / RATE), radius * radius
    gain = 1 + first + second
    found = np.zeros(len(sound))
    before = last = 0.0
    for at, value in enumerate(sound):
        found[at] = gain * value - first * last - second * before
        before, last = last, found[at]
    return found


if __name__ == "__main__":
    noise = np.random.default_rng(0).normal(0, 1e-4, int(RATE * SILENCE))
    samples = np.concatenate([noise, vowel(), noise])
    target = Path(__file__).parent.parent / "voice" / "test_data" / "vowel.pcm"
    target.write_bytes((samples * 32767).astype("<i2").tobytes())
