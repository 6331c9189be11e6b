"""The HTTP side: the application, its routes and its documents."""
