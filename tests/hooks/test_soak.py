"""What a session does over and over holds no more memory after many rounds than after a few."""

import gc

import torch

from hooks import Model, capture, capture_gradients, intervene
from hooks.interventions import scale
from hooks.site import resid_post


def one_round(model: Model) -> None:
    capture(model, ["Fog over", "Bay"], resid_post[1])
    with intervene(model, {resid_post[1]: scale(2.0)}), torch.no_grad():
        model.run("Fog")
        model.generate("Fog", max_new_tokens=2)
    capture_gradients(model, "Fog", [resid_post[1]], lambda said: said.square().sum())


def test_forty_rounds_leave_no_object(gpt2: Model) -> None:
    for _ in range(5):
        one_round(gpt2)
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(40):
        one_round(gpt2)
    gc.collect()
    assert len(gc.get_objects()) - before < 40  # less than one for each round
