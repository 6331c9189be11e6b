"""Models, their lanes and jobs: what happens to a request between a surface and a slot."""
