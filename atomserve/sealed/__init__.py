"""Files that only who has the key can read, and nobody can alter unnoticed."""

from atomserve.sealed.files import seal, unseal
from atomserve.sealed.keys import key_from_file, key_from_variable
from atomserve.sealed.reader import open

__all__ = ["key_from_file", "key_from_variable", "open", "seal", "unseal"]
