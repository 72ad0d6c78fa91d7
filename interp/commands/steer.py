"""The command `interp steer`: one prompt without and with a dose, or a conversation in which both can be changed."""

import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, final

import typer

from hooks import Direction, Model
from hooks.disk import append_text
from hooks.errors import InterpError, InvalidArgument, NoFluentDose, nearest
from hooks.json_file import parse_object
from interp.commands.arguments import (
    PREDICTS,
    Device,
    ModelName,
    Quiet,
    check_one_vector,
    check_predicts,
    format_duration,
    load_model,
    show_step,
)
from interp.commands.verb import Document, verb
from interp.features.index.digest import digest_of_sae
from interp.sae import SAE
from interp.sae import load as load_sae
from interp.steering import (
    Recipe,
    Steering,
    ablate_direction,
    add_direction,
    clamp_latent,
    set_projection,
    steer,
    suggest_dose,
)

WAYS: dict[str, Callable[[Direction], Steering]] = {
    "add": add_direction,
    "set": set_projection,
    "ablate": ablate_direction,
}
HELP = """Write a prompt to see it continued without and with the dose; or
  :dose NUMBER    another dose
  :latent NUMBER  another latent of the autoencoder
  :way NAME       clamp, add, set or ablate
  :save FILE      the steering as a recipe of kilobytes (not for clamp, which needs the autoencoder)
  :help, :quit"""


@verb
def steer_command(
    model: ModelName,
    prompt: Annotated[
        str | None, typer.Argument(help="What the model continues; without one, prompts are read line by line.")
    ] = None,
    dose: Annotated[
        float | None,
        typer.Option(
            help="In units of the largest value in training; the largest that reads fluently, measured, if not "
            "given. With --way ablate the share of the projection that is removed, 1 if not given."
        ),
    ] = None,
    direction: Annotated[Path | None, typer.Option(help="A saved direction.")] = None,
    sae: Annotated[Path | None, typer.Option(help="A sparse autoencoder, one of whose latents is steered.")] = None,
    latent: Annotated[int | None, typer.Option(min=0, help="That latent.")] = None,
    way: Annotated[
        str | None, typer.Option(help="clamp (if a latent is given), add, set or ablate; the first that fits.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="New tokens at most.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="0 for the likeliest token each time.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn where the temperature is not 0.")] = 0,
    out: Annotated[Path, typer.Option(help="The transcript, a line of JSON for each exchange; it grows.")] = Path(
        "steered.jsonl"
    ),
    device: Device = None,
    quiet: Quiet = False,
) -> Document:
    """Continue prompts without and with a steering, and with a random one, and say what was changed."""
    check_one_vector(direction, sae, latent)
    what = (
        Direction.load(direction) if direction is not None else None,
        load_sae(sae) if sae is not None else None,
    )
    chosen = _Chosen(*what, latent, way or ("add" if sae is None else "clamp"), dose)
    chosen.steering()  # a wrong latent or way is refused before the model is loaded
    check_predicts(model, "steering changes what is written", PREDICTS)
    options = {"max_new_tokens": tokens, "temperature": temperature, "seed": seed}
    talk = _Talk(load_model(model, device, quiet=quiet), options, out, quiet)
    if chosen.sae is not None:
        chosen.sae.to(talk.model.device)
    if prompt is None:
        _converse(talk, chosen)
        said = {}
    else:
        said = talk.exchange(chosen, prompt)
    if out.exists():
        typer.echo(f"transcript: {out.resolve()}")
    return {**said, "transcript": out}


@final
@dataclass
class _Chosen:
    """What is steered with at the moment."""

    direction: Direction | None
    sae: SAE | None
    latent: int | None
    way: str
    given: float | None
    measured: float | None = None
    checked: float | None = None  # the last dose given of which it is known whether it reads fluently

    @property
    def dose(self) -> float:
        """The dose given, or the one measured; of ablation the whole projection."""
        if self.given is not None:
            return self.given
        return 1.0 if self.measured is None else self.measured

    def settle_dose(self, model: Model, quiet: bool = False) -> None:
        """Measure a dose where none was given, and say of one that was given whether it is too large."""
        if self.given is None and self.measured is None and self.way != "ablate":
            with show_step("measuring a dose that reads fluently", quiet):
                suggested = suggest_dose(model, self.steering(), progress=False)
            self.measured = suggested.dose
            typer.echo(str(suggested))
        if self.given is not None and self.given not in (0.0, self.checked):
            self.checked = self.given
            try:
                with show_step("measuring how fluent the dose is", quiet):
                    suggest_dose(model, self.steering(), doses=(self.given,), progress=False)
            except NoFluentDose as error:
                typer.echo(f"note: {error}, or leave it out to have one measured")

    def steering(self) -> Steering:
        """The way of steering."""
        if self.way == "clamp" and self.sae is not None and self.latent is not None:
            return clamp_latent(self.sae, self.latent)
        if self.way not in WAYS:
            known = [*WAYS, *(["clamp"] if self.sae is not None else [])]
            raise InvalidArgument(
                f"no way of steering here is called '{self.way}'; did you mean {nearest(self.way, known)}?"
            )
        return WAYS[self.way](self.vector())

    def vector(self) -> Direction:
        """Its direction."""
        if self.sae is not None and self.latent is not None:
            return self.sae.direction(self.latent)
        assert self.direction is not None  # one of the two is given
        return self.direction


@final
@dataclass
class _Talk:
    """A model that continues prompts, and the transcript of what it said."""

    model: Model
    options: dict[str, Any]
    out: Path
    quiet: bool = False

    def exchange(self, chosen: _Chosen, prompt: str) -> Document:
        """Continue a prompt both ways, unless the transcript has that exchange already; print and return it."""
        chosen.settle_dose(self.model, self.quiet)
        steering = chosen.steering()
        asked = {"model": self.model.fingerprint, "steering": steering.source, "site": str(steering.site)}
        asked |= {"dose": chosen.dose, "prompt": prompt, **self.options, "vector": _digest(steering)}
        random = steering.control(0)
        asked |= {"control_is": random.source}
        if chosen.way == "clamp" and chosen.sae is not None:
            asked["autoencoder"] = digest_of_sae(chosen.sae)
        had = self._had(asked)
        if had is None:
            began = time.perf_counter()
            with show_step("continuing", self.quiet):
                plain = self.model.generate(prompt, **self.options)
            typer.echo(
                f"unsteered: {prompt}{plain}  (took {time.perf_counter() - began:.1f} s, as will each of the others)"
            )
            with show_step("continuing, steered", self.quiet), steer(self.model, steering, chosen.dose) as receipt:
                steered = self.model.generate(prompt, **self.options)
            with show_step("continuing, steered at random", self.quiet), steer(self.model, random, chosen.dose):
                control = self.model.generate(prompt, **self.options)
            had = asked | {"unsteered": plain, "steered": steered, "control": control, "receipt": str(receipt)}
            self._keep(had)
        else:
            typer.echo(f"this exchange is in {self.out} already\nunsteered: {prompt}{had['unsteered']}")
        typer.echo(f"dose {chosen.dose:g}: {prompt}{had['steered']}")
        typer.echo(f"control, {random.source}, dose {chosen.dose:g}: {prompt}{had['control']}")
        typer.echo(had["receipt"])
        return had | {"model": self.model.name, "fingerprint": self.model.fingerprint}

    def _had(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        if not self.out.exists():
            return None
        lines = [line for line in self.out.read_bytes().splitlines() if line.rstrip().endswith(b"}")]  # whole ones
        said = [parse_object(line, self.out, "remove that line, or give another --out") for line in lines]
        return next((one for one in said if {name: one.get(name) for name in asked} == asked), None)

    def _keep(self, said: dict[str, Any]) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        append_text(self.out, json.dumps(said, ensure_ascii=False) + "\n")


def _digest(steering: Steering) -> str:
    """What identifies a vector."""
    return hashlib.sha256(steering.vector.detach().cpu().float().contiguous().numpy().tobytes()).hexdigest()[:16]


def _converse(talk: _Talk, chosen: _Chosen) -> None:
    """Read prompts and orders until the input ends; a mistake is reported and changes nothing."""
    began = time.perf_counter()
    talk.model.generate("A", max_new_tokens=2)
    each = (
        (time.perf_counter() - began) * 1.5 * talk.options["max_new_tokens"]
    )  # three continuations, from one of two tokens
    chosen.settle_dose(talk.model, talk.quiet)
    made = chosen.steering()
    typer.echo(f"{made.source} at {made.site}, dose {chosen.dose:g}; {format_duration(each)} per prompt")
    typer.echo(HELP)
    while True:
        typer.echo("> ", nl=False)
        line = sys.stdin.readline()
        if not line or line.strip() in (":quit", ":q"):
            typer.echo()
            return
        if not line.strip():
            continue
        try:
            _obey(talk, chosen, line.rstrip("\n"))
        except (InterpError, OSError) as error:
            typer.echo(f"error: {' '.join(str(error).split())}")


def _obey(talk: _Talk, chosen: _Chosen, line: str) -> None:
    if not line.startswith(":"):
        talk.exchange(chosen, line)
        return
    order, _, rest = line[1:].strip().partition(" ")
    orders = {"dose": _dose, "latent": _latent, "way": _way, "save": _save, "help": lambda *_: typer.echo(HELP)}
    if order not in orders:
        known = [f":{name}" for name in (*orders, "quit")]
        raise InvalidArgument(f"no order is called ':{order}'; did you mean {nearest(f':{order}', known)}?")
    orders[order](chosen, rest.strip())


def _dose(chosen: _Chosen, rest: str) -> None:
    try:
        dose = float(rest)
        chosen.steering().dose(dose)
    except ValueError:
        raise InvalidArgument(f"':dose {rest}' needs a finite number, such as :dose 2") from None
    chosen.given = dose
    typer.echo(f"dose {dose:g}, in units of {chosen.steering().unit}")


def _latent(chosen: _Chosen, rest: str) -> None:
    if chosen.sae is None or not rest.isdigit():
        raise InvalidArgument(f"':latent {rest}' needs a number, and a session begun with --sae FOLDER")
    _try(chosen, _Chosen(None, chosen.sae, int(rest), chosen.way, chosen.given))


def _way(chosen: _Chosen, rest: str) -> None:
    _try(chosen, _Chosen(chosen.direction, chosen.sae, chosen.latent, rest, chosen.given))


def _try(chosen: _Chosen, other: _Chosen) -> None:
    """Take over what another choice has, once it is known to work."""
    made = other.steering()
    chosen.latent, chosen.way, chosen.measured, chosen.checked = other.latent, other.way, None, None
    dose = "the dose is measured at the next prompt" if chosen.given is None else f"dose {chosen.given:g}"
    typer.echo(f"{made.source}, {dose}; in units of {made.unit}")


def _save(chosen: _Chosen, rest: str) -> None:
    if chosen.way not in WAYS or not rest:
        raise InvalidArgument(
            "write :save FILE.safetensors, with :way add, set or ablate: clamping needs the autoencoder"
        )
    path = Path(rest)
    Recipe(chosen.vector(), chosen.way, chosen.dose).save(path)
    typer.echo(f"recipe: {path.resolve()}")
