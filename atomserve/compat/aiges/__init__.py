"""Everything that runs `wrapper.py` files written for AIGES."""
