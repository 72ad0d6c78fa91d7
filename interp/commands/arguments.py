"""What commands take and say in common: models, texts and files by name, where to compute, seconds in words."""

import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from threading import Event, Thread
from typing import Annotated
from urllib.parse import urlsplit

import torch
import typer
from rich.console import Console

from hooks import Model, Site, Towers, load
from hooks.devices import find_device
from hooks.errors import InvalidArgument, InvalidType, MissingFile, NotReachable
from hooks.network import AnyModel
from hooks.pieces import piece
from interp.circuits.metric import Word, first_token
from interp.postcard import bundled_nets, load_net

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="'landmark', a folder, or a Hugging Face id.")]
SiteName = Annotated[str, typer.Argument(metavar="SITE", help="Such as resid_post.4; `interp sites` lists them.")]
TextsFile = Annotated[Path, typer.Argument(metavar="TEXTS", help="A file with one text per line.")]
WrittenOn = Annotated[str | None, typer.Option("--device", help="Such as cuda; cpu if not given.")]
Device = Annotated[str | None, typer.Option(help="Such as cuda or cpu; a GPU if there is one.")]
FirstToken = Annotated[bool, typer.Option("--first-token", help="Of a word of several tokens take the first.")]
NewFolder = Annotated[Path, typer.Argument(help="Where to write; give the same folder again to resume.")]
TrainingFolder = Annotated[Path, typer.Argument(help="The folder a training run wrote to.")]
DriftTexts = Annotated[
    Path | None, typer.Option(help="Texts for covariances and drift, one per line; the model's own otherwise.")
]
EditLayer = Annotated[int | None, typer.Option(min=0, help="Where to edit; traced if not given.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress bars.")]

ONE_PAIR = "One pair of texts has no interval"
PATIENCE = 2.0  # seconds that a step takes before a log has a line of it
TABLES = (".json", ".jsonl", ".parquet", ".arrow")
WAIT = 3.0  # seconds for the hub to take a connection before a command says that it does not answer
PREDICTS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_ID = re.compile(r"id:(\d+)")
READS_OUT = (*PREDICTS, "ForMaskedLM", "ForPreTraining")


def load_model(model: str, device: str | None = None, *, quiet: bool = False) -> Model:
    """The model of this name, on the device of that name; a line says that it is being loaded.

    Raises:
        NotReachable: it is neither a folder nor in the cache, and the hub does not answer.
        MissingFile: there is no such model.
        InvalidArgument: no such device.
        InvalidType: a model that reads pictures.
    """
    place = check_device(device)
    check_reachable(model)
    hide_bars()
    with show_step(f"loading {model}", quiet):
        loaded = load(model, device=place)
    if not isinstance(loaded, Model):
        raise InvalidType(f"{model} reads pictures, and this command texts: load it in Python, by hooks.load")
    return loaded


def load_any_model(model: str, device: str | None = None, *, quiet: bool = False) -> AnyModel:
    """The model of this name, of texts or of pictures: a bundled net of pictures, its image tower, or any other.

    Raises:
        NotReachable: it is neither a folder nor in the cache, and the hub does not answer.
        MissingFile: there is no such model.
        InvalidArgument: no such device.
    """
    place = check_device(device)
    drawn = model in bundled_nets()
    if not drawn:
        check_reachable(model)
    hide_bars()
    with show_step(f"loading {model}", quiet):
        loaded = load_net(model, place) if drawn else load(model, device=place)
    return loaded.image if isinstance(loaded, Towers) else loaded


def check_device(device: str | None) -> torch.device:
    """The device of this name; without one, this process's GPU (`LOCAL_RANK` under torchrun), or the CPU.

    Raises:
        InvalidArgument: there is no such device.
    """
    if device is not None:
        return find_device(device)
    gpu = torch.cuda.is_available()
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if gpu else torch.device("cpu")


def check_predicts(model: str, wanted: str, kinds: tuple[str, ...] = READS_OUT) -> None:
    """Refuse a model that has no output vocabulary, by its config alone, before its weights are read.

    Args:
        model: its name.
        wanted: what the command does with predictions.
        kinds: endings of classes that will do.

    Raises:
        InvalidArgument: it is an encoder, a classifier or the like.
    """
    if model == "landmark":
        return
    check_reachable(model)
    hide_bars()
    from transformers import AutoConfig

    try:
        named = AutoConfig.from_pretrained(model, trust_remote_code=False).architectures or []
    except (OSError, ValueError):
        return  # load says what is wrong in more detail
    if named and not named[0].endswith(kinds):
        raise InvalidArgument(
            f"{model} is a {named[0]}, which predicts no next token, and {wanted}: take a model whose class ends in "
            f"{' or '.join(kinds)}; `interp capture`, `probe`, `train-sae` and `search` read any model"
        )


def folder_or_id(model: str) -> str:
    """Where a model's files are, as transformers takes it.

    Examples:
        >>> folder_or_id("gpt2")
        'gpt2'
    """
    return str(files("interp.landmark") / "model") if model == "landmark" else model


def check_answers(model: str, first: bool = False, **answers: str) -> None:
    """Refuse an answer that is not one token of a model, by its tokenizer alone, before its weights are read.

    Args:
        model: its name.
        first: of a word of several tokens the first is taken.
        answers: RIGHT and WRONG, by the names that the command gives them.

    Raises:
        InvalidArgument: an answer of several tokens or of none.
    """
    check_reachable(model)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_or_id(model), trust_remote_code=False)
    except (OSError, ValueError):
        return  # load says what is wrong in more detail
    for name, word in answers.items():
        if _ID.fullmatch(word):
            continue
        ids = tokenizer(word, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InvalidArgument(f"{name} is {word!r}, and {word!r} has no tokens: give a word that is one")
        if len(ids) > 1 and not first:
            pieces = [piece(tokenizer, i) for i in ids]
            raise InvalidArgument(
                f"{name} is {word!r}, which is {len(ids)} tokens of {model}, {pieces}: give a word of one token, "
                f"such as {pieces[0]!r}, or take its first by --first-token"
            )


def word_of(model: Model, text: str, first: bool) -> Word:
    """A word of a command: as it is, the token of that id where it is `id:123`, or its first token if asked for.

    Examples:
        ```python
        word_of(model, "id:123", first=False)  # 123
        ```
    """
    if named := _ID.fullmatch(text):
        return int(named[1])
    return first_token(model, text) if first else text


def load_to_answer(
    model: str, wanted: str, first: bool, device: str | None, *, quiet: bool, **answers: str
) -> tuple[Model, list[Word]]:
    """Load a model that is to choose between answers, and give the answers, once both are known to be fit.

    Args:
        model: its name.
        wanted: what its predictions are needed for, such as "a circuit is of what is predicted".
        first: whether of a word of several tokens the first is taken.
        device: where to put it.
        quiet: no progress bars.
        answers: RIGHT and WRONG, by the names that the command gives them.

    Raises:
        InvalidArgument: a model that predicts no tokens, an answer of several tokens or of none.

    Examples:
        ```python
        loaded, answers = load_to_answer("gpt2", "patching measures it", False, None, quiet=True, RIGHT=" Paris")
        ```
    """
    check_predicts(model, wanted)
    check_answers(model, first, **answers)
    loaded = load_model(model, device, quiet=quiet)
    return loaded, [word_of(loaded, word, first) for word in answers.values()]


def warn_unshown(clean: float, corrupt: float) -> str | None:
    """What to say first where the clean text does not show the behaviour, which makes shares of it say little.

    `clean` and `corrupt` are the logit differences, right less wrong, after either text.

    Examples:
        >>> warn_unshown(2.0, -1.0) is None
        True
    """
    if clean > max(corrupt, 0.0):
        return None
    return (
        f"RIGHT is not preferred to WRONG after the clean text (logit difference {clean:+.3f}; {corrupt:+.3f} after "
        "the corrupt one), so these shares say little: take texts that show the behaviour"
    )


def lead_with(warning: str | None, lead: str) -> str:
    """A page's lead, with a warning before it where there is one.

    Examples:
        >>> lead_with("nothing was found", "A search.")
        'Nothing was found. A search.'
    """
    return lead if warning is None else f"{warning[:1].upper()}{warning[1:]}. {lead}"


def note(warning: str | None) -> None:
    """Print a warning, where there is one."""
    if warning is not None:
        typer.echo(f"note: {warning}")


def check_sites(names: Iterable[str]) -> None:
    """Refuse a misspelt site before a model is read; globs and layers are left to the model to refuse.

    Raises:
        UnknownSite: no site is called that.
    """
    for name in names:
        if not set(name) & set("*?["):
            Site.parse(name)


def check_one_vector(direction: Path | None, sae: Path | None, latent: int | None) -> None:
    """Check that one vector was named: a saved direction, or a latent of a dictionary.

    Raises:
        InvalidArgument: none, both, or a latent without its dictionary.

    Examples:
        >>> check_one_vector(Path("fog.safetensors"), None, None)
    """
    options = {"--direction": direction, "--sae": sae, "--latent": latent}
    given = [name for name, value in options.items() if value is not None]
    if given not in (["--direction"], ["--sae", "--latent"]):
        raise InvalidArgument(
            "say which vector: either --direction FILE, or --sae FOLDER and --latent NUMBER; given: "
            f"{', '.join(given) or 'none of them'}"
        )


def check_reachable(model: str) -> None:
    """Refuse the name of a model on the hub at once where neither the cache nor the network has it.

    Raises:
        NotReachable: the hub does not answer.
    """
    if model == "landmark" or Path(model).is_dir() or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, "config.json")
    except HFValidationError:
        return  # load says what a name must look like
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"))
    if isinstance(cached, str) or proxied:
        return
    hub = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((str(hub.hostname), hub.port or 443), timeout=WAIT).close()
    except OSError as error:
        raise NotReachable(
            f"no model at '{model}': there is no such folder, it is not in the cache, and {hub.hostname} does not "
            f"answer ({error.strerror or error}): check the name and the network, or give a folder or 'landmark'"
        ) from error


def hide_bars() -> None:
    """Keep transformers from drawing a progress bar for every model it reads."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


@contextmanager
def show_step(what: str, quiet: bool = False) -> Iterator[None]:
    """Say what is being done: on a terminal until it is done, elsewhere in a line on stderr where it takes long."""
    console = Console(stderr=True)
    if quiet:
        yield
    elif console.is_terminal:
        with console.status(f"{what} …"):
            yield
    else:
        done = Event()
        teller = Thread(target=_tell, args=(what, done), daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()


def _tell(what: str, done: Event) -> None:
    """Write a line once a step has taken `PATIENCE` seconds, and another each time that it has taken twice as long."""
    waited = PATIENCE
    while not done.wait(waited):
        typer.echo(f"{what} …", err=True)
        waited *= 2


def read_lines(path: Path) -> list[str]:
    """The texts of a file, one per line, blank lines left out.

    Raises:
        InvalidArgument: there are none, the file is not UTF-8, or it is a table, whose lines are no texts.
        MissingFile: there is no such file.
    """
    if path.suffix.lower() in (".csv", ".tsv", *TABLES):
        raise InvalidArgument(
            f"{str(path)!r} is a table, and a file with one text per line is read: save its column of texts as .txt"
        )
    return _read_text_lines(path)


def read_columns(path: Path) -> list[list[str]]:
    """The lines of a file, each split at its tabs, blank lines left out.

    Raises:
        InvalidArgument: there are none, the file is not UTF-8, or its columns are kept in another way.
        MissingFile: there is no such file.
    """
    if path.suffix.lower() in (".csv", *TABLES):
        raise InvalidArgument(f"{str(path)!r} is no file of lines with tabs between their parts: save it as .tsv")
    return [line.split("\t") for line in _read_text_lines(path)]


def _read_text_lines(path: Path) -> list[str]:
    if path.is_dir():
        raise InvalidArgument(f"{str(path)!r} is a folder: give a file with one text per line")
    if not path.is_file():
        raise MissingFile(f"there is no file {str(path)!r}: give a file with one text per line")
    try:
        found = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise InvalidArgument(f"the file {str(path)!r} is not UTF-8 ({error}): save it as UTF-8 text") from error
    if not found:
        raise InvalidArgument(f"the file {str(path)!r} holds no text: give a file with one text per line")
    return found


def make_parent_folder(path: Path) -> None:
    """Make the folder that a file will be written to, so that a wrong path is refused before the work, not after it.

    Raises:
        OSError: the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)


def format_duration(seconds: float | int) -> str:
    """A time, as roughly as it is known.

    Examples:
        >>> format_duration(4), format_duration(200), format_duration(9000)
        ('less than 10 seconds', 'about 3 minutes', 'about 2.5 hours')
    """
    if seconds < 10:
        return "less than 10 seconds"
    if seconds < 100:
        return f"about {10 * round(seconds / 10):.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 5400 else f"about {seconds / 3600:.1f} hours"
