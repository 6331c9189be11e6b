"""The Priority header field (RFC 9218): how urgent a request is beside others."""

from __future__ import annotations

import re

from atomserve.engine.jobs import USUAL_URGENCY

LONGEST = 256
"""Characters of a field that is read; nobody has so much to say with one letter and one digit."""

# A dictionary of RFC 9651: members with values, inner lists and parameters of every type.
_KEY = r"[a-z*][a-z0-9_.*-]*"
_ITEM = (
    r"(?:-?[0-9]{1,12}\.[0-9]{1,3}|@?-?[0-9]{1,15}"
    r'|%?"(?:[ !#-\[\]-~]|\\["\\])*"'
    r"|[A-Za-z*][!#$%&'*+.^_`|~:/0-9A-Za-z-]*"
    r"|:[A-Za-z0-9+/=]*:"
    r"|\?[01])"
)
_PARAMETERS = rf"(?:; *{_KEY}(?:={_ITEM})?)*"
_LIST = rf"\( *(?:{_ITEM}{_PARAMETERS}(?: +{_ITEM}{_PARAMETERS})* *)?\)"
_MEMBER = re.compile(rf"({_KEY})(?:=({_ITEM}|{_LIST}))?{_PARAMETERS}")
_COMMA = re.compile(r"[ \t]*,[ \t]*")

_URGENCIES = {str(urgency): urgency for urgency in range(8)}


def urgency(field: str) -> int:
    """Return the urgency that ``field`` names, 0 to 7; what cannot be read says nothing."""
    found = USUAL_URGENCY
    place, end = 0, len(field)
    if end > LONGEST:
        return USUAL_URGENCY
    while True:
        member = _MEMBER.match(field, place)
        if member is None:
            return USUAL_URGENCY
        if member[1] == "u":  # of several, the last counts
            found = _URGENCIES.get(member[2] or "", USUAL_URGENCY)
        place = member.end()
        if place == end:
            return found
        comma = _COMMA.match(field, place)
        if comma is None:
            return USUAL_URGENCY
        place = comma.end()
