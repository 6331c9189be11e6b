"""The package `linker_atom`, as services know it."""

__version__ = "0.0.43"
"""The release whose names these modules supply."""
