"""Files of autoencoders: ours, which are those of SAELens, and the formats of other libraries."""
