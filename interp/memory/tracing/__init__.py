"""Causal tracing: where in the model a fact passes."""
