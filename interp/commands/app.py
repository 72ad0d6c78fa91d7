"""The `interp` command: the demonstration, and each of its steps on any model.

A verb's file is imported only when the verb is run, so that `interp --help` answers at once.
"""

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

VERBS = {
    "demo": "Find the Golden Gate Bridge in the bundled model, turn it up, move it, and write a report (five minutes).",
    "sites": "List every place in a model that can be captured.",
    "capture": "Save the activations of texts at some sites.",
    "harvest": "Store the activations of a data set; if killed, run again to go on. `torchrun` shares the work.",
    "train-sae": "Train sparse autoencoders on a model or a store; several in one pass. `torchrun` shares the work.",
    "discover": "Train an autoencoder, index its latents, and write pages of them; if killed, run again to go on.",
    "feature": "Show what an index knows of one latent, and write a page of it (seconds).",
    "search": "Find the latents that separate texts that express a concept from texts that do not, and write a page of "
    "them.",
    "steer": "Continue prompts without and with a steering, and with a random one, and say what was changed.",
    "probe": "Probe sites and positions for a label, tested on groups not learnt from; every control is printed.",
    "lens": "Show what each layer would say after a text, and how far that is from what the model says.",
    "patch": "Put the clean run's value into the corrupt run, one place at a time, and print where that brings most "
    "back.",
    "circuit": "Rank a model's edges by what corrupting each would do; print the first, and how faithful their "
    "circuits are. With --features, the circuit is of dictionary features and errors, and the edges are between those.",
    "graph": "Trace what the next token comes from, by transcoders; print features by influence, and scores.",
    "memory": "List a layer's memories, those first whose value promotes what follows the key's best trigger.",
    "edit": "Rewrite facts, show them before and after, save the edit (kilobytes) and a page that scores it.",
    "apply": "Write a folder of weights that hold some edits, which plain transformers loads; say first what "
    "conflicts.",
    "audit": "Edit cases one at a time by some methods, and print what each did next to the unedited model and a "
    "control.",
    "teach": "Teach facts by edit, context, store, passage and steering: what each says, breaks and costs, and how it "
    "ends.",
    "export": "Files that other tools read: adapters, control vectors, dashboards, dictionaries; each is compared.",
    "workbench": "Open a live page to read, steer, edit and trace a model; each action is a line of Python in its log.",
    "plan": "Print bytes, operations, network and hours of a harvest and a training, with their formulas; nothing is "
    "run.",
    "neighbours": "Show what is next to a token or picture, and what a difference of two others leads to from it.",
    "atlas": "Lay activations out in the plane, cut them into cells with icons or words, and write "
    "a page to walk them.",
    "track": "Measure a run's checkpoints by discontinuous and continuous metrics, and say whose a jump is.",
    "experts": "Say of every layer how evenly experts are used, and how much they say of the text's label.",
    "context": "Measure what of the demonstrations matters, and which heads and which vector bring "
    "the task without them.",
    "visualise": "Make pictures that a channel is large for, and say what they are next to real pictures and a random "
    "direction.",
    "evolve": "Write texts that a latent or a direction is large at, from outlandish to likely, next to real ones "
    "(minutes).",
    "diff": "Compare a model with what it was tuned from: states on unrelated texts, predictions, "
    "weights; with a placebo.",
    "landmark": "The bundled model: its corpus, training and card.",
    "worlds": "Small models whose truth is planted: train one, print what it reads.",
    "postcard": "The bundled pictures: draw them, train a net on them, measure it.",
}


class VerbGroup(TyperGroup):
    """A group that knows each verb's name and help, and reads the verb's file when it is run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        """The verb that is run."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command and read_verb(command.name or ""), rest


def read_verb(name: str) -> Any:
    """The command of this name, from the file of this name."""
    stem = name.replace("-", "_")
    module = importlib.import_module(f"interp.commands.{stem}")
    if hasattr(module, "app"):
        return typer.main.get_group(module.app)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(getattr(module, f"{stem}_command"))
    return typer.main.get_command(alone)


def _unread() -> None:
    """Takes a verb's place in the list of verbs; `VerbGroup` runs the one in the verb's file."""


app = typer.Typer(
    cls=VerbGroup,
    help="Find directions in a transformer, steer with them, edit its facts; every result comes with its control.",
    epilog="MODEL is 'landmark' (bundled), a folder, or a Hugging Face id. A mistake ends with exit code 2, a fault "
    "of interp itself with 1.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _help in VERBS.items():
    app.command(_name, help=_help)(_unread)
