"""The package `aiges`, as wrappers know it."""

__version__ = "0.16.0"
"""The release of the SDK whose names these modules supply."""

EXIT_SIG = -1
