"""Services written for linker_atom: the modules that they import, and what these are made of."""
