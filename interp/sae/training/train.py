"""The trainer: one autoencoder, or several in one pass over the activations, from a model or a store."""

from collections.abc import Mapping, Sequence

from hooks.border import Natural
from interp.sae.architectures.sae import SAE
from interp.sae.data.source import Source
from interp.sae.training.callbacks import Callback
from interp.sae.training.checkpoint import Checkpoint
from interp.sae.training.history import TrainReport
from interp.sae.training.member import Member
from interp.sae.training.plan import Plan
from interp.sae.training.resample import Resampling
from interp.sae.training.run import run
from interp.sae.training.schedule import Schedule


def train(
    sae: SAE,
    source: Source,
    *,
    tokens: int = 1_000_000,
    batch_size: int = 2048,
    lr: float | int | None = None,
    schedule: Schedule = Schedule(),  # noqa: B008
    clip: float | int | None = 1.0,
    dead_after: int = 100_000,
    resampling: Resampling | None = None,
    buffer: int = 131_072,
    seed: Natural = 0,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> TrainReport:
    """Train a sparse autoencoder in place on `tokens` activations of a source, and say where it belongs.

    Adam (betas 0.9 and 0.999 unless the architecture says otherwise, epsilon 6.25e-10), the norm of its gradient
    clipped at `clip`; its rate and the sparsity penalty go as `schedule` says. `lr` is 2e-4 sqrt(2^14 / d_sae) unless
    given (Gao et al. 2024). Batches are drawn from a shuffle buffer of `buffer` rows; a source that fits into it is
    read once, a longer one again and again. A latent silent for `dead_after` tokens counts as dead: what revives it
    is the architecture's auxiliary loss, or `resampling`. Same seed, same weights. An autoencoder that is trained
    already is trained further.

    With a `checkpoint` a run that was killed goes on when it is called again, and ends with the same bits as one that
    never was. Under `torchrun` the processes share the source's forward passes and the rows of every batch, and the
    weights are those of one process alone, to rounding; for latents shared among them see `ShardedTopK`.

    Cost: the source's forward passes and, per batch, one dense product with the encoder.

    Raises:
        InvalidArgument: activations of another width, or holding NaN or infinity, with their place; a loss or weights
            that are not finite; a checkpoint of another run; an autoencoder that was trained on activations normalised
            otherwise; resampling of latents shared among processes.
        WrongState: a checkpoint, and a block of interventions is open on the source's model.

    Examples:
        ```python
        sae = TopK(model.d_model, 2048, k=32)
        print(train(sae, activations_of(model, texts, resid_post[4]), tokens=500_000))
        save(sae, "my_sae")
        ```
    """
    reports = train_many(
        {"": Member(sae, lr=lr)},
        source,
        tokens=tokens,
        batch_size=batch_size,
        schedule=schedule,
        clip=clip,
        dead_after=dead_after,
        resampling=resampling,
        buffer=buffer,
        seed=seed,
        checkpoint=checkpoint,
        callbacks=callbacks,
        progress=progress,
    )
    return reports[""]


def train_many(
    members: Mapping[str, Member],
    source: Source,
    *,
    tokens: int = 1_000_000,
    batch_size: int = 2048,
    schedule: Schedule = Schedule(),  # noqa: B008
    clip: float | int | None = 1.0,
    dead_after: int = 100_000,
    resampling: Resampling | None = None,
    buffer: int = 131_072,
    seed: Natural = 0,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> dict[str, TrainReport]:
    """Train several autoencoders in one pass: sites, sizes, sparsities and seeds as the members have them.

    Each ends with the weights it would have if it were trained alone on its site; what they share is the source's
    forward passes, the buffer, and the order of its rows. Arguments and errors as for `train`. The report is measured
    on batches that are kept in memory, 131,072 rows at most.

    Raises:
        UnknownName: the source does not hold a member's site.

    Examples:
        ```python
        source = activations_at(model, texts, [resid_post[3], resid_post[4]])
        members = {f"{site} {k}": Member(TopK(256, 2048, k), site) for site in source.sites for k in (16, 32)}
        reports = train_many(members, source, tokens=10_000_000)
        ```
    """
    plan = Plan(tokens, batch_size, schedule, clip, dead_after, resampling, buffer, seed)
    return run(members, source, plan, checkpoint=checkpoint, callbacks=callbacks, progress=progress)
