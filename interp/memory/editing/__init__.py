"""What editors share, step by step, and the edit itself.

An edit by ROME, and of the others what they share with it:

1. `placement`: the token and layers to write at, given or where `locate` (by causal tracing) finds the facts, and the
   second moment C of each layer's keys (`covariance`), estimated over texts that the model writes itself (`contexts`).
2. `contexts`: texts put before the prompt, and templates whose continuations are to stay.
3. `value_search`: the new fact stated in every context (`tokenise_statements`), and the δ found by gradient through the
   frozen model (`search_value`); `prefix_cache` reads once what comes before the edited token.
4. `single_layer` for one layer: the mean key k̄ and the δ of its output. `multi_layer` for several (MEMIT, PMET,
   AlphaEdit): targets at the last layer, then layer after layer the residual that is still missing, with the changes so
   far in place. `keys` reads what a layer looks up at a token.
5. `change`: the least change ΔW that writes a value at a key, in factors.
6. `edit`: the `Edit`, which applies, undoes bit for bit, stacks and is saved; it can also hold a `codebook` (GRACE), a
   `datastore` (kNN memory) or a `prompt_cache` (in-context) that answer next to the weights.
7. `checks`: the edit is applied once and measured, and refused (`EditRefused`) where the model does not say its facts.

`merge` writes a model with its edits to a folder that plain transformers loads.
"""
