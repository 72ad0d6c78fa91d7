"""The trainer: one run over batches of activations for one autoencoder or several, with checkpoints."""
