"""What services that were written for linker_atom need to run unchanged."""
