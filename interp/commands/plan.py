"""The command `interp plan`: what a job costs on given machines, before it runs."""

from typing import Annotated

import typer

from hooks.errors import InvalidArgument
from interp.commands.verb import Document, verb
from interp.scale import DEVICES, Job, Machines, plan_job


@verb
def plan_command(
    model_params: Annotated[float, typer.Option(min=1, help="Parameters of the model, such as 70e9.")],
    d_model: Annotated[int, typer.Option(min=1, help="Its width.")],
    latents: Annotated[float, typer.Option(min=1, help="Latents of the dictionary, such as 1e7.")],
    tokens: Annotated[float, typer.Option(min=1, help="Tokens to harvest and train on, such as 1e12.")],
    device: Annotated[str, typer.Option(help=f"One of {', '.join(DEVICES)}.")] = "h100",
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    per_node: Annotated[int, typer.Option(min=1, help="Devices of each.")] = 8,
    k: Annotated[int, typer.Option("--k", min=1, help="Latents on per token.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Tokens per step.")] = 131_072,
    depth: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the layers that run; a pass ends after the site.")
    ] = 1.0,
    utilisation: Annotated[
        float, typer.Option(min=0, max=1, help="The share of a device's operations that is reached.")
    ] = 0.4,
    price: Annotated[float | None, typer.Option(min=0, help="Of a device for an hour.")] = None,
) -> Document:
    """Print bytes, operations, network and hours of a harvest and a training, with their formulas; nothing is run."""
    if latents != int(latents):
        raise InvalidArgument(f"--latents {latents}: give a whole number")
    if k > latents:
        raise InvalidArgument(f"--k {k:,} of --latents {int(latents):,} cannot be on at once: give at most as many")
    job = Job(model_params, d_model, tokens, int(latents), k, batch, depth)
    found = plan_job(job, Machines.of(device, nodes, per_node=per_node, utilisation=utilisation, price=price))
    typer.echo(found)
    return {
        "costs": [vars(one) for one in found.costs],
        "warnings": found.warnings,
    }
