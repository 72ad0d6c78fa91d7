"""Finding a model's sites by watching one forward pass of the model itself.

1. `record`: run a short text once; note every tensor operation, and what each module was given and gave;
2. `residual`: for a block, the sum that makes its output out of its input and of what its sublayers add;
3. `stacks`: the lists of modules that pass a stream [batch pos d] on from item to item, call by call;
4. `sublayers`: what each term of that sum is (attention, another mixer of tokens, cross-attention, feed-forward), and
   the projections that read and write inside it, with the gates (`gates`) that multiply what is mixed;
5. `experts`: in a mixture of experts the call that reads a choice of experts and its weights, and the router;
6. `placement`: where each site of the block sits, as a tap.

What is found is a guess until the contract (`hooks/contract/`) has measured it as a law on another text.
"""
