"""Causal tracing: where in the model a fact is looked up."""
