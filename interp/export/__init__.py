"""What was found, in the files of other tools: adapters, control vectors, scripts, dashboards, tables, ONNX.

Every function writes its files whole or not at all, reads them back as their reader would, compares what that computes
with what we do, and returns an `ExportReport` with the difference, the whole effect, and what was not taken along.

1. `peft_adapter`, `merged_folder`: edits of facts, as a LoRA adapter and as a folder of weights.
2. `layer_vectors`: what recipes add at each layer; `control_vector`, `vector_files`, `hook_script`: files of that.
3. `autoencoders`: dictionaries and transcoders; `dashboard`: what an index knows of their latents.
4. `estimator`, `onnx_graph`: probes; `table`: the rows of any result.
"""

from hooks.border import guard
from interp.export.autoencoders import to_circuit_tracer, to_dictionary_learning, to_sparsify
from interp.export.control_vector import read_gguf_vector, to_gguf_vector
from interp.export.dashboard import to_neuronpedia
from interp.export.estimator import to_sklearn
from interp.export.hook_script import to_hook_script
from interp.export.merged_folder import to_folder
from interp.export.onnx_graph import to_onnx
from interp.export.peft_adapter import to_peft
from interp.export.report import ExportReport
from interp.export.table import to_table
from interp.export.vector_files import read_layer_tensors, read_svec, to_layer_tensors, to_svec

__all__ = [
    "ExportReport",
    "read_gguf_vector",
    "read_layer_tensors",
    "read_svec",
    "to_circuit_tracer",
    "to_dictionary_learning",
    "to_folder",
    "to_gguf_vector",
    "to_hook_script",
    "to_layer_tensors",
    "to_neuronpedia",
    "to_onnx",
    "to_peft",
    "to_sklearn",
    "to_sparsify",
    "to_svec",
    "to_table",
]

guard(globals(), __all__)
