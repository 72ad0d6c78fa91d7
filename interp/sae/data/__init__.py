"""Where activations for training come from, how they are mixed, normalised and shared among processes."""
