"""A model without an output vocabulary is indexed and explained as any other; nothing is said of what it promotes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hooks import load
from hooks.site import resid_post
from interp.features import collect_evidence, explain_text, index
from interp.sae import TopK, activations_of, train


def test_latents_of_an_encoder_have_their_evidence_and_promote_nothing(
    hf_model: Callable[..., Any], tokenizer: Any, tmp_path: Path
) -> None:
    model = load(hf_model("bert").bert, tokenizer)  # the encoder without its head
    texts = ["fog over the bay", "the sun is out", "grey fog and rain"]
    sae = TopK(model.d_model, 24, k=2)
    train(sae, activations_of(model, texts, resid_post[1]), tokens=200, batch_size=20, progress=False)
    found = index(sae, model, texts, tmp_path / "index")
    (latent, *_) = [row["latent"] for row in found.table("latents").to_pylist() if row["fired"]]
    record, alone = found.record(latent), collect_evidence(sae, model, texts, latent)
    assert record.evidence.examples and record.evidence.promoted == () == alone.promoted
    assert record.evidence.firing_rate == alone.firing_rate > 0
    assert any(read.firings for read in explain_text(sae, model, texts[0]))
