"""Documents that services answer with."""
