"""Probes, dictionaries, features and tables read back by other tools are what they were here."""

import json
import pickle
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from pyarrow import feather, parquet

from hooks import Model
from hooks.errors import InvalidArgument, InvalidType
from hooks.site import mlp_in, mlp_out, resid_post
from interp.export import (
    to_circuit_tracer,
    to_dictionary_learning,
    to_neuronpedia,
    to_onnx,
    to_sklearn,
    to_sparsify,
    to_table,
)
from interp.features import index
from interp.sae import BatchTopK, Gated, JumpReLU, MatryoshkaBatchTopK, SkipTranscoder, Standard, TopK, Transcoder
from interp.sae.io.other_libraries import load_dictionary_learning
from interp.sae.io.transcoder_files import load_transcoders
from probes import LDA, MLP, DifferenceOfMeans, LeastSquares, Logistic, MassMean, Multinomial, Ridge

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((60, 5))
TWO = (X[:, 0] + 0.5 * RANDOM.standard_normal(60) > 0).astype(int)
WORDS = np.array(["fog", "sea"])[TWO]
THREE = np.digitize(X[:, 1], [-0.5, 0.5])


@pytest.mark.parametrize("labels", [TWO, WORDS])
@pytest.mark.parametrize("probe", [Logistic(), LDA(), DifferenceOfMeans(), MassMean(), Multinomial()])
def test_a_classifier_scores_and_predicts_alike_in_scikit_learn(probe: object, labels: np.ndarray) -> None:
    fitted = probe.fit(X, labels)
    theirs = pickle.loads(pickle.dumps(to_sklearn(fitted)))
    assert type(theirs).__module__.startswith("sklearn")
    np.testing.assert_allclose(theirs.decision_function(X), fitted.decision_function(X), atol=1e-7)
    assert list(theirs.predict(X)) == list(fitted.predict(X))
    if hasattr(theirs, "predict_proba"):
        np.testing.assert_allclose(theirs.predict_proba(X), fitted.predict_proba(X), atol=1e-7)


def test_several_classes_and_numbers_too() -> None:
    many = Multinomial().fit(X, THREE)
    theirs = to_sklearn(many)
    np.testing.assert_allclose(theirs.predict_proba(X), many.predict_proba(X), atol=1e-7)
    assert list(theirs.predict(X)) == list(many.predict(X))
    for probe in (Ridge(), LeastSquares()):
        fitted = probe.fit(X, X[:, 2] - X[:, 3])
        np.testing.assert_allclose(to_sklearn(fitted).predict(X), fitted.predict(X), atol=1e-7)


def test_a_probe_that_is_not_linear_or_not_fitted_is_refused() -> None:
    with pytest.raises(InvalidType):
        to_sklearn(MLP())
    with pytest.raises(Exception, match="not fitted"):
        to_sklearn(Logistic())


@pytest.mark.parametrize("probe", [Logistic(), DifferenceOfMeans(), Multinomial(), Ridge()])
def test_onnxruntime_gives_the_scores_and_probabilities_of_the_probe(probe: object, tmp_path: Path) -> None:
    labels = {Multinomial: THREE, Ridge: X[:, 2]}.get(type(probe), TWO)
    fitted = probe.fit(X, labels)
    report = to_onnx(fitted, tmp_path / "probe.onnx")
    assert report.difference is not None and report.difference < 1e-5 < report.effect
    session = onnxruntime.InferenceSession(str(tmp_path / "probe.onnx"))
    rows = X.astype(np.float32)
    score = session.run(["score"], {"x": rows})[0].squeeze()
    expected = fitted.decision_function(X) if hasattr(fitted, "decision_function") else fitted.predict(X)
    np.testing.assert_allclose(score, expected, atol=1e-5)
    if hasattr(fitted, "predict_proba"):
        given = session.run(["probability"], {"x": rows})[0].squeeze()
        wanted = fitted.predict_proba(X)
        np.testing.assert_allclose(given, wanted if wanted.shape[1] > 2 else wanted[:, 1], atol=1e-6)


def drawn(sae: torch.nn.Module) -> torch.nn.Module:
    """The same with random weights and thresholds."""
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random))
        if "threshold" in dict(sae.named_buffers()) or "threshold" in dict(sae.named_parameters()):
            sae.threshold.abs_()
            sae.threshold.fill_(0.7)
    return sae


ROWS = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("sae", "name"),
    [
        (Standard(6, 12), "AutoEncoderNew"),
        (JumpReLU(6, 12), "JumpReluAutoEncoder"),
        (TopK(6, 12, 3), "AutoEncoderTopK"),
        (BatchTopK(6, 12, 3), "JumpReluAutoEncoder"),
        (MatryoshkaBatchTopK(6, 12, 3, widths=[4, 12]), "JumpReluAutoEncoder"),
    ],
)
def test_an_autoencoder_for_dictionary_learning_has_the_same_latents(
    sae: torch.nn.Module, name: str, tmp_path: Path
) -> None:
    sae = drawn(sae)
    sae.site = resid_post[2]
    to_dictionary_learning(sae, tmp_path / "trainer_0")
    config = json.loads((tmp_path / "trainer_0" / "config.json").read_text())["trainer"]
    assert config["dict_class"] == name and config["layer"] == 2
    read = load_dictionary_learning(tmp_path / "trainer_0")
    torch.testing.assert_close(read.encode(ROWS), sae.encode(ROWS), atol=1e-5, rtol=1e-5)
    assert read.site == resid_post[2] and int((sae.encode(ROWS) > 0).sum()) > 10


def test_what_another_library_has_no_class_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="no class for a Gated"):
        to_dictionary_learning(Gated(6, 12), tmp_path / "a")
    with pytest.raises(InvalidArgument, match="keep the k largest"):
        to_sparsify(Standard(6, 12), tmp_path / "b")
    with pytest.raises(InvalidArgument, match="no transcoders"):
        to_circuit_tracer([], tmp_path / "c", scan="x")
    assert not [*tmp_path.iterdir()]


def test_transcoders_for_circuit_tracer_keep_their_linear_path_and_sites(tmp_path: Path) -> None:
    made = [drawn(SkipTranscoder(6, 12)) for _ in range(2)]
    for layer, one in enumerate(made):
        one.sites = (mlp_in[layer], mlp_out[layer])
    to_circuit_tracer(made, tmp_path / "set", scan="me/mine")
    for one, read in zip(made, load_transcoders(tmp_path / "set"), strict=True):
        torch.testing.assert_close(read(ROWS), one(ROWS))
        assert read.sites == one.sites
    with pytest.raises(InvalidArgument, match="for each layer from the first on"):
        to_circuit_tracer([drawn(Transcoder(6, 12))], tmp_path / "other", scan="me/mine")


def test_an_index_becomes_batches_in_the_fields_of_saedashboard(gpt2: Model, tmp_path: Path) -> None:
    sae = drawn(TopK(32, 20, 4))
    sae.site = resid_post[1]
    texts = ["Fog over the bay", "The sea is cold", "Rome is in Italy"] * 3
    made = index(sae, gpt2, texts, tmp_path / "index", top=3, sampled=2)
    report = to_neuronpedia(made, tmp_path / "np", model_id="m", sae_set="s", layer=1, batch=8)
    assert [file.name for file in report.files] == ["batch-0.json", "batch-1.json", "batch-2.json"]
    batches = [json.loads(file.read_text()) for file in report.files]
    features = [feature for batch in batches for feature in batch["features"]]
    assert [feature["feature_index"] for feature in features] == list(range(20))
    assert all((batch["model_id"], batch["layer"], batch["sae_set"]) == ("m", 1, "s") for batch in batches)
    record = next(one for one in made.records(range(20)) if one.evidence.examples)
    feature, best = features[record.latent], record.evidence.examples[0]
    first = feature["activations"][0]
    assert first["tokens"] == list(best.tokens) and first["qualifying_token_index"] == best.peak
    assert first["values"][best.peak] == max(first["values"]) == pytest.approx(best.activation, abs=1e-3)
    assert feature["frac_nonzero"] == record.evidence.firing_rate
    for one in feature["activations"][len(record.evidence.examples) :]:
        peak = one["values"][one["qualifying_token_index"]]
        assert one["bin_min"] - 1e-3 <= peak <= one["bin_max"] + 1e-3 and 0 < one["bin_contains"] <= 1
    bins = {(a["bin_min"], a["bin_contains"]) for a in feature["activations"] if a["bin_min"] >= 0}
    assert sum(share for _, share in bins) <= 1 + 1e-9
    with pytest.raises(InvalidArgument, match="no empty folder"):
        to_neuronpedia(made, tmp_path / "np", model_id="m", sae_set="s", layer=1)


class Rows:
    """A result with rows."""

    fingerprint = "abc"

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame({"latent": [1, 2], "auroc": [0.1 + 0.2, 1.0], "word": ["fog", "sea, and <b>"]})


def test_a_table_keeps_every_bit_and_says_what_it_was_made_of(tmp_path: Path) -> None:
    for name, read in (("t.parquet", parquet.read_table), ("t.arrow", feather.read_table)):
        to_table(Rows(), tmp_path / name, about={"auroc": "share of pairs"})
        table = read(tmp_path / name)
        pd.testing.assert_frame_equal(table.to_pandas(), Rows().to_pandas())
        said = json.loads(table.schema.metadata[b"interp"])
        assert said == {"interp.result": "Rows", "interp.fingerprint": "abc", "auroc": "share of pairs"}
    to_table(Rows(), tmp_path / "t.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), Rows().to_pandas())


def test_what_has_no_rows_and_forms_that_are_unknown_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidType):
        to_table(3, tmp_path / "t.parquet")
    with pytest.raises(InvalidArgument, match="parquet"):
        to_table(Rows(), tmp_path / "t.parqet")
