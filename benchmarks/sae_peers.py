"""One training step of each peer's own trainer, on weights shared with ours: SAELens, dictionary_learning, sparsify."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from interp.sae import SAE, BatchTopK, Gated, JumpReLU, MatryoshkaBatchTopK, Standard, TopK

LR = 2e-4
TakeStep = Callable[[Tensor], object]
COEFFICIENTS = {Standard: "l1", Gated: "l1", JumpReLU: "l0"}


def saelens_autoencoder(ours: SAE) -> Any:
    """SAELens's autoencoder of the same architecture, settings and weights; decoder norms play no part in either."""
    from sae_lens import saes

    sizes: dict[str, Any] = {"d_in": ours.d_in, "d_sae": ours.d_sae, "dtype": str(ours.W_dec.dtype).split(".")[1]}
    ranked: dict[str, Any] = {"rescale_acts_by_decoder_norm": False}
    match ours:
        case TopK():
            config = saes.TopKTrainingSAEConfig(**sizes, k=ours.k, aux_loss_coefficient=ours.aux_coefficient, **ranked)
            theirs = saes.TopKTrainingSAE(config)
        case MatryoshkaBatchTopK():
            config = saes.MatryoshkaBatchTopKTrainingSAEConfig(
                **sizes, k=ours.k, matryoshka_widths=[*ours.widths], **ranked
            )
            theirs = saes.MatryoshkaBatchTopKTrainingSAE(config)
        case BatchTopK():
            theirs = saes.BatchTopKTrainingSAE(saes.BatchTopKTrainingSAEConfig(**sizes, k=ours.k, **ranked))
        case Standard():
            config = saes.StandardTrainingSAEConfig(
                **sizes, apply_b_dec_to_input=False, l1_coefficient=ours.coefficient, l1_warm_up_steps=0
            )
            theirs = saes.StandardTrainingSAE(config)
        case Gated():
            config = saes.GatedTrainingSAEConfig(**sizes, l1_coefficient=ours.coefficient, l1_warm_up_steps=0)
            theirs = saes.GatedTrainingSAE(config)
        case JumpReLU():
            config = saes.JumpReLUTrainingSAEConfig(
                **sizes, apply_b_dec_to_input=False, l0_coefficient=ours.coefficient, l0_warm_up_steps=0
            )
            theirs = saes.JumpReLUTrainingSAE(config)
        case _:
            raise ValueError(f"SAELens has nothing like {type(ours).__name__}")
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            getattr(theirs, name).copy_(parameter)
    return theirs


def saelens_gradients(ours: SAE, x: Tensor) -> dict[str, Tensor]:
    """The gradients that SAELens takes of the same batch, no latent dead."""
    from sae_lens.saes.sae import TrainStepInput

    theirs = saelens_autoencoder(ours)
    named = COEFFICIENTS.get(type(ours))
    coefficients: dict[str, Any] = {} if named is None else {named: ours.coefficient}
    dead = torch.zeros(ours.d_sae, dtype=torch.bool)
    asked = TrainStepInput(
        sae_in=x, coefficients=coefficients, dead_neuron_mask=dead, n_training_steps=0, is_logging_step=False
    )
    theirs.training_forward_pass(asked).loss.backward()
    return {name: getattr(theirs, name).grad for name, _ in ours.named_parameters()}


def saelens_step(ours: SAE, steps: int, batch: int) -> TakeStep:
    """A step of `SAETrainer`: forward, firing statistics, backward, clipping, Adam; nothing logged."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    config = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=LR,
        lr_end=LR,
        logger=LoggingConfig(log_to_wandb=False),
    )
    theirs = saelens_autoencoder(ours)
    trainer = SAETrainer(config, theirs, iter(()), None)
    return lambda x: trainer._train_step(theirs, x)


def dictionary_learning_step(ours: TopK, steps: int) -> TakeStep:
    """A step of dictionary_learning's `TopKTrainer`."""
    from dictionary_learning.trainers.top_k import TopKTrainer  # pyright: ignore[reportMissingImports]

    trainer = TopKTrainer(
        steps=steps, activation_dim=ours.d_in, dict_size=ours.d_sae, k=ours.k, layer=0, lm_name="", lr=LR,
        warmup_steps=0, auxk_alpha=ours.aux_coefficient,
    )  # fmt: skip
    with torch.no_grad():
        trainer.ae.encoder.weight.copy_(ours.W_enc.T)
        trainer.ae.encoder.bias.copy_(ours.b_enc)
        trainer.ae.decoder.weight.copy_(ours.W_dec.T)
    number = iter(range(1, 1 << 30))  # step 0 takes a geometric median first
    return lambda x: trainer.update(next(number), x)


def sparsify_step(ours: TopK) -> TakeStep:
    """Forward and backward of sparsify's `SparseCoder`, with Adam, clipping and its decoder normalisation around it."""
    from sparsify import SparseCoder, SparseCoderConfig  # pyright: ignore[reportMissingImports]

    coder = SparseCoder(ours.d_in, SparseCoderConfig(num_latents=ours.d_sae, k=ours.k))
    with torch.no_grad():
        coder.encoder.weight.copy_(ours.W_enc.T)
        coder.encoder.bias.copy_(ours.b_enc)
        assert coder.W_dec is not None
        coder.W_dec.copy_(ours.W_dec)
    adam = torch.optim.Adam(coder.parameters(), lr=LR)

    def step(x: Tensor) -> None:
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        torch.nn.utils.clip_grad_norm_(coder.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        coder.set_decoder_norm_to_unit_norm()

    return step
