"""Which latents of an autoencoder express a concept, and whether to believe it.

1. `concept`, `phrase`: the concept as labelled texts with their mentions, split in two halves that share no group.
2. `reading` (one folder up): every text is run once up to the autoencoder's site, and every token is encoded.
3. `rows`: tokens become rows, one for each token or each text, with labels, and which labels may be exchanged.
4. `ranking`: on the searched half, the threshold of each latent with the highest F1.
5. `score`: on the other half, what that threshold gives, with its interval; and the null of exchanged labels.
6. `baselines`: two probes and a principal component, treated the same.
7. `group`: up to three latents that do better together.
8. `search`: steps 2 to 7 in order; `candidates`: the latents that are worth turning up.
"""
