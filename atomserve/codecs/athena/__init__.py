"""The Athena protocol's documents: requests and frames read, answers and errors written."""
