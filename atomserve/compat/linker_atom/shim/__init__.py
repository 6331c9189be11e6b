"""The top-level package that linker_atom's services import, under its own name in this folder."""
