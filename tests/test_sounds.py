"""Sounds: the extra's formats, and WAV with nothing but the standard library."""

import io
import struct
import subprocess
import sys
import wave

import numpy as np
import pytest
import soundfile

from atomserve.codecs.sounds import decode_sound, encode_sound
from atomserve.errors import TooLarge, UnsupportedMedia
from atomserve.fields import AudioClip

RATE = 16_000
TONE = np.sin(np.arange(1600, dtype=np.float32) / 10).astype(np.float32) * np.float32(0.5)
STEREO = AudioClip(np.stack([TONE, -TONE]), RATE)


def written(kind: str, subtype: str) -> memoryview:
    out = io.BytesIO()
    soundfile.write(out, STEREO.samples.T, RATE, subtype=subtype, format=kind)
    return memoryview(out.getvalue())


@pytest.mark.parametrize(
    ("kind", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-6),
        ("WAV", "FLOAT", 0),
        ("FLAC", "PCM_16", 1e-4),
        ("OGG", "VORBIS", 0.1),
    ],
)
def test_a_sound_is_channels_of_float32(kind: str, subtype: str, tolerance: float) -> None:
    clip = decode_sound(written(kind, subtype))
    assert clip.rate == RATE
    assert clip.samples.dtype == np.float32
    assert clip.samples.shape == (2, 1600)
    assert not clip.samples.flags.writeable
    assert np.abs(clip.samples - STEREO.samples).max() <= tolerance


@pytest.mark.parametrize("media_type", ["audio/wav", "audio/flac", "audio/ogg"])
def test_a_sound_is_written_and_read_again(media_type: str) -> None:
    clip = decode_sound(memoryview(encode_sound(STEREO, media_type)))
    assert clip.rate == RATE
    assert np.abs(clip.samples - STEREO.samples).max() < (
        0.1 if media_type == "audio/ogg" else 1e-4
    )


def test_what_is_too_loud_is_cut_off() -> None:
    clip = decode_sound(memoryview(encode_sound(AudioClip(np.float32([[2, -2, np.nan]]), RATE))))
    assert clip.samples.tolist() == [[32767 / 32768, -1, 0]]


@pytest.mark.parametrize("kind", ["AIFF", "AU", "CAF"])
def test_other_formats_are_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match="WAV, FLAC or OGG"):
        decode_sound(written(kind, "PCM_16"))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_broken_sound_is_refused(kind: str) -> None:
    whole = written(kind, "VORBIS" if kind == "OGG" else "PCM_16")
    for data in (whole[:12], whole[:30], bytes(whole[:12]) + bytes(100)):
        with pytest.raises(ValueError, match="not a readable sound"):
            decode_sound(memoryview(data))


def test_a_flac_header_that_promises_too_much_is_refused() -> None:
    data = bytearray(written("FLAC", "PCM_16"))
    data[21] |= 0x0F  # the highest bits of the 36-bit number of frames
    with pytest.raises(TooLarge, match="at most"):
        decode_sound(memoryview(data))


WITHOUT_THE_EXTRA = """
import sys
sys.modules["soundfile"] = None
from atomserve.errors import MissingExtra, TooLarge, UnsupportedMedia
from atomserve.fields import AudioClip
from atomserve.codecs.sounds import decode_sound, encode_sound
import io, wave
import numpy as np
for width, number in ((1, 192), (2, 16384), (3, 4194304), (4, 1073741824)):
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((2, width, 8000, 0, "NONE", ""))
        sound.writeframes(number.to_bytes(width, "little") * 6)
    clip = decode_sound(memoryview(out.getvalue()))
    assert clip.rate == 8000 and clip.samples.shape == (2, 3), clip
    assert (clip.samples == 0.5).all(), (width, clip.samples)
assert decode_sound(memoryview(encode_sound(clip))).samples.shape == (2, 3)
for data, error in ((b"fLaC", UnsupportedMedia), (b"RIFF0000WAVE", ValueError)):
    try:
        decode_sound(memoryview(data))
    except error as exc:
        print(exc)
try:
    encode_sound(clip, "audio/flac")
except MissingExtra as exc:
    print(exc)
"""


def test_wav_needs_no_extra_and_the_others_name_it() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_THE_EXTRA],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert ["atomserve[audio]" in line for line in told] == [True, False, True]


def test_a_wav_header_that_promises_too_much_gives_what_is_there() -> None:
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(20))
    data = bytearray(out.getvalue())
    data[40:44] = struct.pack("<I", 2**31)
    # libsndfile believes the file's length, not its header.
    assert decode_sound(memoryview(data)).samples.shape == (1, 10)
