"""What administrators are served, on a listener of their own."""
