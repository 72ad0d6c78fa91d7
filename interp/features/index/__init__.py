"""The feature index: the evidence for every latent, collected in one pass over texts and kept on disk.

1. `index`: texts are run in batches up to the autoencoder's site and encoded; what is known is saved now and then.
2. `accumulator`: each batch is passed to the running summaries of steps 3 to 5.
3. `statistics`: how often, how strongly and where in a text each latent fires.
4. `misra_gries`: the tokens and the other latents that each fires with most, within bounded memory.
5. `top_examples`: the highest texts of each latent and a random sample of the others, as windows on disk.
6. `tables`: the three tables in parquet, and the next tokens each latent promotes.
7. `catalogue`: the tables opened again, a `Record` for each latent; `digest`: of which autoencoder they are.
"""
