"""The parent process: listening sockets, children, start and stop."""
