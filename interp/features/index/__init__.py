"""The feature index: the evidence for every latent, gathered in one pass over texts and kept on disk."""
