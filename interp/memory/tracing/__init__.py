"""Causal tracing: where in the model a fact is looked up.

1. `corruption`: the subject of each fact is broken, by noise on its embeddings or by another subject in its place.
2. `trace`: for each token role and window of layers, the spots to restore.
3. `corruption`: one pass over a clean row and rows broken alike, in each of which one spot is restored from the clean.
4. `trace`: what that brings back of the answer's probability, over facts, with intervals, and where it is most.
"""
