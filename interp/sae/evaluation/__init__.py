"""How good a dictionary is: reconstruction, what the model loses, splicing, concepts, comparison with the truth."""
