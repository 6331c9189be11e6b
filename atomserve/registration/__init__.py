"""Tell a control plane that this instance is there, for as long as it is."""
