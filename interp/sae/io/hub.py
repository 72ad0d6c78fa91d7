"""Published autoencoders: SAELens's thousands, and folders on the Hugging Face hub."""

from pathlib import Path

from hooks import Site
from interp.sae.architectures.sae import SAE
from interp.sae.io.files import CHECKSUMS, CONFIG, WEIGHTS, load, save
from interp.sae.io.saelens import from_saelens


def load_pretrained(release: str, sae_id: str, *, site: Site | None = None) -> SAE:
    """One of the autoencoders that SAELens lists, with the same latents and reconstructions, in float32.

    SAELens finds, fetches and converts it; https://decoderesearch.github.io/SAELens/latest/pretrained_saes lists them.
    `check_fits(sae, model)` says whether a model is the one it belongs to; `site` is where it reads, for a name that no
    site here has.

    Raises:
        InvalidArgument: SAELens knows no such release or autoencoder; or its architecture, its site or its way of
            normalising its input is not one that is read here.

    Examples:
        ```python
        sae = load_pretrained("gpt2-small-res-jb", "blocks.6.hook_resid_pre")
        ```
    """
    import sae_lens

    theirs = sae_lens.SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    return from_saelens(theirs.cfg.to_dict(), theirs.state_dict(), f"{release}/{sae_id}", site=site)


def push(sae: SAE, repository: str, folder: str, *, into: Path | str) -> str:
    """Save an autoencoder and upload it into a folder of a repository of the Hugging Face hub, made if need be.

    Takes the hub's usual credentials from the environment. `into` is where it is saved on the way. Returns the
    address of the commit.

    Examples:
        ```python
        push(sae, "me/my-saes", "resid_post.4", into="saes/resid_post.4")
        ```
    """
    from huggingface_hub import HfApi

    saved, hub = save(sae, into), HfApi()
    hub.create_repo(repository, exist_ok=True)
    done = hub.upload_folder(
        repo_id=repository, folder_path=saved, path_in_repo=folder, allow_patterns=[CONFIG, WEIGHTS, CHECKSUMS]
    )
    return str(done.commit_url)


def pull(repository: str, folder: str) -> SAE:
    """Load an autoencoder in SAELens's format from a folder of a repository of the Hugging Face hub.

    Raises:
        MissingFile: the folder holds no saved autoencoder.
        InvalidArgument: as for `load`.

    Examples:
        ```python
        sae = pull("me/my-saes", "resid_post.4")
        ```
    """
    from huggingface_hub import snapshot_download

    wanted = [f"{folder}/{name}" for name in (CONFIG, WEIGHTS, CHECKSUMS)]
    return load(Path(snapshot_download(repository, allow_patterns=wanted)) / folder)
