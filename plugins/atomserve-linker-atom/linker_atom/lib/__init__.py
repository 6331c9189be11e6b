"""What services use beside HTTP."""
