"""A sample of transformers' classes, each judged by plain hooks on its own modules."""

from typing import Any

import pytest
import torch

from benchmarks.tiny_models import VOCAB, tiny_model
from benchmarks.zoo import holds_core, served
from benchmarks.zoo_judge import truth_of

SAMPLE = {
    "causal": "afmoe:AfmoeForCausalLM apertus:ApertusForCausalLM arcee:ArceeForCausalLM bamba:BambaForCausalLM "
    "bart:BartForCausalLM biogpt:BioGptForCausalLM bitnet:BitNetForCausalLM codegen:CodeGenForCausalLM "
    "cohere:CohereForCausalLM ctrl:CTRLLMHeadModel deepseek_v3:DeepseekV3ForCausalLM exaone4:Exaone4ForCausalLM "
    "falcon_h1:FalconH1ForCausalLM gemma4_text:Gemma4ForCausalLM glm4:Glm4ForCausalLM gpt_oss:GptOssForCausalLM "
    "granitemoeshared:GraniteMoeSharedForCausalLM jetmoe:JetMoeForCausalLM lfm2:Lfm2ForCausalLM "
    "llama4_text:Llama4ForCausalLM mamba:MambaForCausalLM mamba2:Mamba2ForCausalLM minimax:MiniMaxForCausalLM "
    "nemotron_h:NemotronHForCausalLM olmo_hybrid:OlmoHybridForCausalLM qwen3_moe:Qwen3MoeForCausalLM "
    "qwen3_5_text:Qwen3_5ForCausalLM recurrent_gemma:RecurrentGemmaForCausalLM stablelm:StableLmForCausalLM "
    "xglm:XGLMForCausalLM xlnet:XLNetLMHeadModel",
    "masked": "albert:AlbertForMaskedLM deberta-v2:DebertaV2ForMaskedLM distilbert:DistilBertForMaskedLM "
    "esm:EsmForMaskedLM fnet:FNetForMaskedLM modernbert:ModernBertForMaskedLM roberta:RobertaForMaskedLM",
    "seq2seq": "bart:BartForConditionalGeneration marian:MarianMTModel t5:T5ForConditionalGeneration",
}
CLASSES = [(mapping, *one.split(":")) for mapping, listed in SAMPLE.items() for one in listed.split()]


def judged(kind: str, name: str) -> dict[str, Any]:
    """What is served of a tiny model, and the verdicts."""
    hf = tiny_model(kind, name)
    ids = torch.randint(6, VOCAB, (1, 11), generator=torch.Generator().manual_seed(1))
    return {"state": "loaded", **served(hf, ids, truth_of(hf, ids))}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("mapping", "kind", "name"), CLASSES, ids=[name for _, _, name in CLASSES])
def test_streams_and_sublayers_are_right_and_nothing_is_wrong(mapping: str, kind: str, name: str) -> None:
    row = judged(kind, name)
    assert row["state"] == "loaded", row
    assert not row["wrong"], row["wrong"]
    assert row["logits"] is True
    assert holds_core(row), row["sites"]
