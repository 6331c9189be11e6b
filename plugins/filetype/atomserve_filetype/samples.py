"""Small files of well-known kinds: inputs of the examples."""

from base64 import b64decode

__all__ = ["JSON", "PDF", "PICTURE", "PYTHON"]

PICTURE = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAEElEQVR42mNgGAWjYBTAAAADEAAB1y2EYwAAAABJ"
    "RU5ErkJggg=="
)
"""A PNG of 16 by 16 black pixels."""

PYTHON = b'''import math


def area(radius: float) -> float:
    """Return the area of a circle."""
    return math.pi * radius**2


if __name__ == "__main__":
    print(area(2.0))
'''

JSON = b"""{
  "name": "kettle",
  "litres": 1.7,
  "modes": ["green", "black"],
  "timer": null
}
"""

PDF = b"""%PDF-1.4
1 0 obj
<< /Type /Catalog /Pages 2 0 R >>
endobj
2 0 obj
<< /Type /Pages /Kids [] /Count 0 >>
endobj
xref
0 3
0000000000 65535 f\x20
0000000009 00000 n\x20
0000000058 00000 n\x20
trailer
<< /Size 3 /Root 1 0 R >>
startxref
110
%%EOF
"""
"""A document without a page."""
