"""What functions here call the objects of transformers, a library imported only once a model is loaded."""

from typing import Any, TypeAlias

HFModel: TypeAlias = Any
"""A `transformers.PreTrainedModel`."""
HFConfig: TypeAlias = Any
"""A `transformers.PretrainedConfig`."""
HFOutput: TypeAlias = Any
"""What a forward pass returns: a `transformers.utils.ModelOutput`."""
Tokenizer: TypeAlias = Any
"""A `transformers.PreTrainedTokenizerBase`, or None for a model without one."""
