"""Where wrappers run: slots that are threads, and what runs in a slot."""
