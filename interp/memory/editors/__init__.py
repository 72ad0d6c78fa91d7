"""The editors, one method per file, under one signature: `editor(model, facts) -> Edit`.

What each does with the steps that `interp.memory.editing` numbers:

- `rome`: one layer; each fact in turn through steps 1 to 6, with the earlier ones in place; step 7 for all of them.
- `emmet`: one layer; steps 2 to 4 for each subject, then one change (5) that writes all values, each at its key.
- `memit`: several layers; values at the last one (3) for each subject, then step 4 and 5 layer by layer, each layer
  writing the residual over the number of layers left.
- `pmet`: as `memit`, with values of the feed-forward output that are searched together with a change of attention, and
  the residual over the square root of the number of layers left.
- `alphaedit`: as `memit`, each change confined to directions in which usual keys have little energy, and to keep the
  values of earlier edits.
- `ft_l`: no step but 1 and 7; the weight itself is trained within a bound.
- `grace`: steps 1 to 3, and the value goes into a codebook next to the layer.
- `knn_memory`, `in_context`: baselines that change no weight; step 7 measures them.

`registry` sets up any of them by its name, all at one place.
"""
