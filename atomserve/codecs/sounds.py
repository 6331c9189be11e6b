"""Sounds: encoded bytes to samples and back."""

from __future__ import annotations

import io
import wave
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from atomserve.errors import MissingExtra, TooLarge, UnsupportedMedia
from atomserve.fields import AudioClip

MAX_SAMPLES = 64_000_000
"""Over all channels: eleven minutes of stereo at 48 kHz, 256 MB as float32."""

FORMATS = {"audio/flac": ("FLAC", "PCM_16"), "audio/ogg": ("OGG", "VORBIS")}
BLOCK = 65_536


def decode_sound(data: memoryview) -> AudioClip:
    """Decode WAV, and FLAC or OGG where the extra ``audio`` is installed.

    Raises:
        UnsupportedMedia: another format, or one that needs the extra.
        TooLarge: more than `MAX_SAMPLES`.
        ValueError: corrupt or truncated.
    """
    kind = bytes(data[:12])
    is_wave = kind.startswith((b"RIFF", b"RIFX")) and kind[8:] == b"WAVE"
    if not is_wave and not kind.startswith((b"fLaC", b"OggS")):
        raise UnsupportedMedia("not a sound that is taken here; expected WAV, FLAC or OGG")
    try:
        library = _soundfile()
    except MissingExtra as exc:
        if is_wave:
            return _decode_wave(data)
        raise UnsupportedMedia(str(exc)) from exc
    try:
        with library.SoundFile(io.BytesIO(data)) as sound:
            _check_samples(sound.channels, sound.frames)
            samples = sound.read(dtype="float32", always_2d=True)
            return _clip(samples, sound.samplerate)
    except (library.SoundFileError, RuntimeError, ValueError, TypeError) as exc:
        raise ValueError(f"not a readable sound: {exc}") from exc


def _soundfile() -> ModuleType:
    try:
        import soundfile
    except (ImportError, OSError) as exc:
        raise MissingExtra(
            "FLAC and OGG need the extra: pip install 'atomserve[audio]' (WAV works without)"
        ) from exc
    return soundfile  # type: ignore[no-any-return] # it has no types


def _decode_wave(data: memoryview) -> AudioClip:
    try:
        with wave.open(io.BytesIO(data)) as sound:
            channels, width = sound.getnchannels(), sound.getsampwidth()
            _check_samples(channels, sound.getnframes())
            raw = sound.readframes(sound.getnframes())
            samples = _pcm(raw[: len(raw) // (channels * width) * channels * width], width)
            return _clip(samples.reshape(-1, channels), sound.getframerate())
    except (wave.Error, EOFError, ValueError) as exc:
        raise ValueError(f"not a readable WAV file of PCM samples: {exc}") from exc


def _pcm(raw: bytes, width: int) -> NDArray[np.float32]:
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / np.float32(128)
    if width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        return wide.reshape(-1).view("<i4").astype(np.float32) / np.float32(2**31)
    whole = np.frombuffer(raw, f"<i{width}")
    return whole.astype(np.float32) / np.float32(2 ** (8 * width - 1))


def _check_samples(channels: int, frames: int) -> None:
    if channels * frames > MAX_SAMPLES:
        raise TooLarge(
            f"a sound of {frames} frames in {channels} channels; expected at most {MAX_SAMPLES} "
            "samples"
        )


def _clip(samples: NDArray[np.float32], rate: int) -> AudioClip:
    turned = np.ascontiguousarray(samples.T)
    turned.flags.writeable = False
    return AudioClip(turned, rate)


def encode_sound(value: object, media_type: str = "audio/wav") -> bytes:
    """Encode a clip: 16-bit WAV, FLAC or OGG Vorbis.

    Raises:
        MissingExtra: FLAC or OGG without the extra ``audio``.
        ValueError: ``value`` is no clip.
    """
    if not isinstance(value, AudioClip):
        raise ValueError(f"{type(value).__name__}; expected an AudioClip")
    samples = value.samples
    if not isinstance(samples, np.ndarray) or samples.dtype != np.float32 or samples.ndim != 2:
        what = f"{getattr(samples, 'dtype', type(samples).__name__)}"
        raise ValueError(f"samples of {what}; expected float32 of shape (channels, frames)")
    if not 0 < samples.shape[0] <= 256 or value.rate <= 0:
        raise ValueError(f"{samples.shape[0]} channels at {value.rate} Hz; expected a sound")
    if media_type == "audio/wav":
        return _encode_wave(samples, value.rate)
    library = _soundfile()
    out = io.BytesIO()
    name, subtype = FORMATS[media_type]
    try:
        with library.SoundFile(
            out, "w", value.rate, samples.shape[0], subtype=subtype, format=name
        ) as sound:
            for start in range(0, samples.shape[1], BLOCK):
                # One write of minutes overruns the stack of the Vorbis encoder.
                sound.write(np.ascontiguousarray(samples[:, start : start + BLOCK].T))
    except (library.SoundFileError, RuntimeError, ValueError, TypeError) as exc:
        raise ValueError(f"a sound that has no {media_type} form: {exc}") from exc
    return out.getvalue()


def _encode_wave(samples: NDArray[np.float32], rate: int) -> bytes:
    whole = np.clip(np.rint(np.nan_to_num(samples) * 32768), -32768, 32767).astype("<i2")
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(samples.shape[0])
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(whole.T.tobytes())
    return out.getvalue()
