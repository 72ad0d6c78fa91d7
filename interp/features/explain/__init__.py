"""What latents mean, in words: labels, explanations scored by prediction, hard negatives, a map of a dictionary."""
