"""The smallest files that are still a picture, a sound and a film: inputs of the examples."""

from base64 import b64decode

PICTURE = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAAF0lEQVR42mP4z8DAAMX///9n+P//PwMASskI"
    "+HB7WJ0AAAAASUVORK5CYII="
)
"""A PNG of 3 by 2 pixels: red, green, blue over cyan, magenta, yellow."""

SOUND = b64decode(
    "UklGRmQAAABXQVZFZm10IBAAAAABAAIAQB8AAAB9AAAEABAAZGF0YUAAAAAAQAAAAEAAAABAAAAAQAAAAMAA"
    "AADAAAAAwAAAAMAAAABAAAAAQAAAAEAAAABAAAAAwAAAAMAAAADAAAAAwAAA"
)
"""A WAV of 16 frames, two channels of 16 bits at 8 kHz: a square wave against silence."""

FILM = b64decode("AAAAGGZ0eXBpc29tAAAAAGlzb21tcDQy")
"""The opening box of an MP4."""
