"""Read the settings from file, environment and flags, and explain them."""
