"""A fitted linear probe as an ONNX graph of two or three nodes, for programs without Python."""

from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from hooks.disk import write_file
from hooks.errors import MissingExtra
from interp.export.estimator import to_sklearn
from interp.export.report import ExportReport, check_difference
from probes import Multinomial
from probes.linear import Linear

OPSET: Final = 17
ROWS: Final = 64


def to_onnx(probe: Linear | Multinomial, file: str | Path) -> ExportReport:
    """Write a probe as ONNX: `x` [n, d] in float32; `score` x Wᵀ + b, and `probability` where the probe has one.

    Args:
        probe: a fitted linear probe.
        file: what to write.

    Raises:
        InvalidArgument: a probe that is not linear.
        MissingExtra: the package onnx is not installed.
        WrongState: what runs the file gives other scores.

    Cost: none.

    Examples:
        ```python
        to_onnx(probe, "probe.onnx")
        onnxruntime.InferenceSession("probe.onnx").run(None, {"x": rows})
        ```
    """
    onnx = _onnx()
    fitted = to_sklearn(probe)
    W, b = np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)
    activation = ("Sigmoid" if len(W) == 1 else "Softmax") if hasattr(fitted, "predict_proba") else None
    model = _graph(onnx, W, b, activation)
    onnx.checker.check_model(model, full_check=True)
    with write_file(file) as partial:
        partial.write_bytes(model.SerializeToString())
    report = _compare(file, fitted, ExportReport("a probe as ONNX", (Path(file),)))
    check_difference(report)
    return report


def _graph(onnx: ModuleType, W: Any, b: Any, activation: str | None) -> Any:
    make, real = onnx.helper, onnx.TensorProto.FLOAT
    columns, width = W.shape
    nodes = [make.make_node("MatMul", ["x", "W"], ["product"]), make.make_node("Add", ["product", "b"], ["score"])]
    outputs = ["score"]
    if activation is not None:
        nodes.append(make.make_node(activation, ["score"], ["probability"]))
        outputs.append("probability")
    weights = [
        onnx.numpy_helper.from_array(W.T.astype(np.float32), "W"),
        onnx.numpy_helper.from_array(b.astype(np.float32), "b"),
    ]
    graph = make.make_graph(
        nodes,
        "probe",
        [make.make_tensor_value_info("x", real, ["n", width])],
        [make.make_tensor_value_info(name, real, ["n", columns]) for name in outputs],
        weights,
    )
    return make.make_model(graph, opset_imports=[make.make_opsetid("", OPSET)], ir_version=10)


def _compare(file: str | Path, fitted: Any, report: ExportReport) -> ExportReport:
    """The report with the largest difference of scores on random rows, next to their spread."""
    rows = np.random.default_rng(0).standard_normal((ROWS, fitted.n_features_in_)).astype(np.float32)
    ours = fitted.decision_function(rows) if hasattr(fitted, "decision_function") else fitted.predict(rows)
    run, reader = _runner(file)
    theirs = run(rows).reshape(np.shape(ours))
    spread = float(np.abs(ours - np.mean(ours)).max())
    return ExportReport(report.what, report.files, reader, float(np.abs(theirs - ours).max()), spread)


def _runner(file: str | Path) -> tuple[Any, str]:
    """What computes the scores of rows from the file, and its name: onnxruntime, or else onnx's own reference."""
    try:
        import onnxruntime
    except ImportError:
        from onnx import __version__, load
        from onnx.reference import ReferenceEvaluator

        reference = ReferenceEvaluator(load(file))
        return lambda rows: next(iter(reference.run(["score"], {"x": rows}))), f"onnx's reference {__version__}"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["score"], {"x": rows})[0], f"onnxruntime {onnxruntime.__version__}"


def _onnx() -> ModuleType:
    try:
        import onnx
        import onnx.numpy_helper
    except ImportError as error:
        raise MissingExtra("ONNX files need the package onnx: pip install 'interp-workbench[export]'") from error
    return onnx
