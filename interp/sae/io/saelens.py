"""From SAELens's configuration and weights to an autoencoder that is the same function here, and its words for ours."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from hooks import Site
from hooks.errors import DamagedFile, InvalidArgument, UnknownSite, nearest
from interp.sae.architectures.cross_layer_transcoder import CrossLayerTranscoder
from interp.sae.architectures.registry import ARCHITECTURES, READ_ONLY
from interp.sae.architectures.sae import SAE, fold_normalisation
from interp.sae.architectures.sparse_coder import SparseCoder
from interp.sae.architectures.temporal import Temporal
from interp.sae.data.normalisation import ROW_NORMS, Normalisation, RowNorm

THRESHOLDED: Final = ("batchtopk", "matryoshka_batchtopk")
"""Architectures that SAELens knows after training as "jumprelu", the same function."""
CODERS: Final = {"abstopk": "abstopk", "jumprelu_transcoder": "jumprelu", "jumprelu_skip_transcoder": "jumprelu"}
"""SAELens's architectures that are a `SparseCoder` here, with their activation."""
FOLDED: Final = ("none", "expected_average_only_in", "covariance_whitening")
"""Normalisations that are part of the weights once training is over, so that SAELens does nothing at inference."""
KNOWN: Final = {**ARCHITECTURES, **READ_ONLY, **dict.fromkeys(CODERS, SparseCoder)}


def from_saelens(
    config: Mapping[str, Any], weights: Mapping[str, Float[Tensor, "..."]], where: str, *, site: Site | None = None
) -> SAE:
    """The autoencoder that a configuration and weights in SAELens's words describe; `where` is for errors.

    SAELens's options are folded into the weights:

    - Where the encoder reads x - b_dec in the file and x here, b_dec W_enc is taken from its bias; in the reverse case
      it is added. (A gated one's b_mag changes by exp(r_mag) times as much.)
    - With `rescale_acts_by_decoder_norm` latents are measured in units of x: each decoder row's norm moves into the
      encoder.
    - A threshold below 0 becomes 0, unless `signed_thresholds` is set: libraries that write such a threshold
      compute ReLU(z) 1[z > theta], which is then the same.
    - A checkpoint's scale or whitening (`scaler.…`) is folded as SAELens folds it.

    Raises:
        DamagedFile: weights that are not finite floating-point numbers, are missing, or have another shape.
        InvalidArgument: an architecture or input normalisation that is not implemented here, or a missing setting.

    Examples:
        ```python
        from_saelens(theirs.cfg.to_dict(), theirs.state_dict(), "theirs")
        ```
    """
    config = _in_new_words(dict(config))
    metadata = config.get("metadata") or {}
    kind = _kind(config, metadata, where)
    check_weights(weights, where)
    scaler, stored = _split_normalisation(weights)
    if "factor" in scaler:
        _scale(stored, config, float(scaler["factor"]))
    stored = _in_our_words(stored, config, kind)
    sae = _make(kind, config, metadata, stored, where)
    if "matrix" in scaler:
        sae.normalisation = Normalisation(scaler["mean"], scaler["matrix"], scaler["inverse_matrix"])
        sae = fold_normalisation(sae)
    normalisation = config.get("normalize_activations") or "none"
    sae.row_norm = RowNorm(normalisation) if normalisation in ROW_NORMS else None
    _remember(sae, metadata | {k: config[k] for k in ("hook_name", "model_name") if k in config}, where, site)
    return sae


def saelens_architecture(sae: SAE) -> str:
    """What SAELens calls an architecture; our own name where it has none like it.

    Examples:
        >>> saelens_architecture(SparseCoder(4, 8, activation="jumprelu", d_out=4))
        'jumprelu_transcoder'
    """
    if sae.architecture in THRESHOLDED:
        return "jumprelu"
    if isinstance(sae, SparseCoder):
        if sae.activation == "jumprelu" and sae.transcodes:
            return "jumprelu_skip_transcoder" if sae.skip else "jumprelu_transcoder"
        if sae.activation == "relu" and sae.transcodes:
            return "skip_transcoder" if sae.skip else "transcoder"
        return "abstopk" if sae.activation == "abstopk" and not (sae.transcodes or sae.skip) else sae.architecture
    return sae.architecture


def saelens_settings(sae: SAE) -> dict[str, Any]:
    """The settings of this autoencoder's architecture, as SAELens's configuration has them.

    Examples:
        >>> saelens_settings(SparseCoder(4, 8, activation="abstopk", k=2))
        {'k': 2, 'rescale_acts_by_decoder_norm': False}
    """
    settings = sae.settings()
    if isinstance(sae, Temporal):
        return {
            "apply_b_dec_to_input": sae.subtracts_bias,
            "n_heads": sae.n_heads,
            "n_attn_layers": sae.n_layers,
            "bottleneck_factor": sae.bottleneck,
            "sae_diff_type": "relu" if sae.k is None else "topk",
            "kval_topk": sae.k,
            "tied_weights": sae.tied,
            "activation_normalization_factor": sae.scale,
        } | ({} if sae.scale == 1 else {"normalize_activations": "constant_scalar_rescale"})
    if sae.architecture == "matching_pursuit":
        return settings
    ranked = settings.get("k") and sae.architecture not in THRESHOLDED
    own = {"k": settings["k"], "rescale_acts_by_decoder_norm": False} if ranked else {}
    return own | ({"d_out": settings["d_out"]} if settings.get("d_out") else {})


def check_weights(weights: Mapping[str, Float[Tensor, "..."]], where: str) -> None:
    """Check that weights are finite floating-point numbers.

    Raises:
        DamagedFile: the first that is not, by name.

    Examples:
        >>> check_weights({"W_dec": torch.zeros(2, 2)}, "here")
    """
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            raise DamagedFile(
                f"{where} holds {name} as {str(tensor.dtype).removeprefix('torch.')}: weights are floating-point "
                "numbers; get the file again from where it was made"
            )
        if not bool(tensor.isfinite().all()):
            raise DamagedFile(
                f"{where} holds NaN or infinity in {name}: its training diverged, or the file is damaged; get it again "
                "from where it was made"
            )


def _in_new_words(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration in the words of SAELens 6, whichever version wrote it."""
    for old, new in (("hook_point", "hook_name"), ("activation_fn_str", "activation_fn")):
        if old in config:
            config.setdefault(new, config[old])
    if config.get("activation_fn") == "topk" and (config.get("activation_fn_kwargs") or {}).get("k") is not None:
        config |= {"architecture": "topk", "k": config["activation_fn_kwargs"]["k"]}
    if isinstance(config.get("normalize_activations"), bool):
        config["normalize_activations"] = "expected_average_only_in" if config["normalize_activations"] else "none"
    return config


def _kind(config: Mapping[str, Any], metadata: Mapping[str, Any], where: str) -> type[SAE]:
    """The class that reads this architecture, after a check that its options are all known here."""
    architecture, normalisation = config.get("architecture", "standard"), config.get("normalize_activations") or "none"
    if architecture not in KNOWN:
        raise InvalidArgument(
            f"{where} holds a '{architecture}' autoencoder; those read here are {nearest(architecture, KNOWN)}"
        )
    scaled = architecture == "temporal" and normalisation == "constant_scalar_rescale"
    if normalisation not in (*FOLDED, *ROW_NORMS) and not scaled:
        raise InvalidArgument(
            f"{where} normalises its input by '{normalisation}'; those read here are "
            f"{nearest(normalisation, (*FOLDED, *ROW_NORMS))}"
        )
    activation = config.get("activation_fn") or "relu"
    if (architecture == "standard" and activation != "relu") or config.get("finetuning_scaling_factor"):
        raise InvalidArgument(
            f"{where} is of an older format, with activation '{activation}' or a scale for each latent next to its "
            "weights; load and save it with SAELens first"
        )
    trained_as = metadata.get("training_architecture")
    read_as = trained_as if architecture == "jumprelu" and trained_as in THRESHOLDED else architecture
    return SparseCoder if trained_as == SparseCoder.architecture else KNOWN[read_as]


def _split_normalisation(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A checkpoint's normalisation of its activations, and its weights, copied in float32."""
    scaler = {name.removeprefix("scaler."): tensor for name, tensor in weights.items() if name.startswith("scaler.")}
    own = {n: tensor.detach().float().cpu().clone() for n, tensor in weights.items() if not n.startswith("scaler.")}
    return scaler, own


def _scale(weights: dict[str, Tensor], config: dict[str, Any], factor: float) -> None:
    """Turn weights that read c x into ones that read x: c W_enc, W_dec / c, b_dec / c.

    A threshold in units of x is divided by c too. A decoder that is the encoder of matching pursuit stays: there the
    latents are divided by c.
    """
    tied = config.get("architecture") == "matching_pursuit"
    for name, by in (("W_enc", factor), ("W_dec", 1.0 if tied else 1 / factor), ("b_dec", 1 / factor)):
        if name in weights:
            weights[name] *= by
    if "topk_threshold" in weights and config.get("rescale_acts_by_decoder_norm", False):
        weights["topk_threshold"] /= factor
    if "residual_threshold" in config:
        config["residual_threshold"] /= factor


def _in_our_words(weights: dict[str, Tensor], config: Mapping[str, Any], kind: type[SAE]) -> dict[str, Tensor]:
    """Weights by their names here, changed so that this kind of autoencoder is the same function."""
    if "log_threshold" in weights:
        weights["threshold"] = weights.pop("log_threshold").exp()
    if "topk_threshold" in weights:
        weights["threshold"] = weights.pop("topk_threshold").expand(weights["b_enc"].shape).clone()
    _centre(weights, config, kind)
    if kind.architecture == "temporal" and "W_enc" in weights:
        weights["encoder"] = weights.pop("W_enc")
    if config.get("rescale_acts_by_decoder_norm", False):
        norm = weights["W_dec"].norm(dim=1)
        weights["W_enc"], weights["b_enc"] = weights["W_enc"] * norm, weights["b_enc"] * norm
        weights["W_dec"] = weights["W_dec"] / norm[:, None]
    if "threshold" in weights and not config.get("signed_thresholds", False):
        weights["threshold"] = weights["threshold"].clamp(min=0)
    return weights


def _centre(weights: dict[str, Tensor], config: Mapping[str, Any], kind: type[SAE]) -> None:
    """Shift the biases of an encoder that reads x where this kind reads x - b_dec, or the reverse."""
    architecture = config.get("architecture", "standard")
    reads_centred = config.get("apply_b_dec_to_input", "transcoder" not in architecture)
    if architecture in ("matching_pursuit", "temporal"):
        if not reads_centred and (kind.centred or config.get("tied_weights", True)):
            weights["b_dec"] = torch.zeros_like(weights["b_dec"])  # SAELens then neither subtracts nor adds it
        return
    if reads_centred == kind.centred:
        return
    shift = weights["b_dec"] @ weights["W_enc"] * (1 if kind.centred else -1)
    for name in ("b_enc", "b_gate"):
        if name in weights:
            weights[name] = weights[name] + shift
    if "b_mag" in weights:
        weights["b_mag"] = weights["b_mag"] + shift * weights["r_mag"].exp()


def _make(
    kind: type[SAE], config: Mapping[str, Any], metadata: Mapping[str, Any], weights: Mapping[str, Tensor], where: str
) -> SAE:
    """An autoencoder with these weights, each of which is checked to be wanted and of the right shape."""
    said = {**config, **(metadata.get("training_architecture_details") or {})}
    try:
        settings = metadata.get("settings") or _settings(config.get("architecture", "standard"), kind, said)
    except KeyError as missing:
        raise InvalidArgument(
            f"{where} does not say the {missing} of its '{config.get('architecture')}' autoencoder, so it is of an "
            "older format; load and save it with SAELens first"
        ) from missing
    if "W_dec" not in weights or weights["W_dec"].ndim < 2:
        raise DamagedFile(f"{where} holds no decoder, a matrix called W_dec: it is no autoencoder of SAELens's")
    d_sae = len(weights["W_dec"])
    d_in = weights["W_enc"].shape[-2] if "W_enc" in weights else weights["W_dec"].shape[-1]
    if kind is CrossLayerTranscoder and "b_enc" in weights:
        d_sae, d_in = weights["b_enc"].numel(), weights["W_dec"].shape[-1]
    sae = kind(d_in, d_sae, **settings)
    expected = {name: tensor.shape for name, tensor in sae.state_dict().items()}
    needed = {*dict(sae.named_parameters()), *({"threshold"} & expected.keys())}
    if lost := sorted(needed - weights.keys()) + sorted(weights.keys() - expected.keys()):
        named = config.get("architecture", "standard")
        raise InvalidArgument(f"{where} does not hold the weights of a '{named}' autoencoder: see {lost}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name]:
            raise DamagedFile(
                f"{where} holds {name} of shape {tuple(tensor.shape)}, and the other weights need "
                f"{tuple(expected[name])}: it is damaged; get it again from where it was made"
            )
    sae.load_state_dict(dict(weights), strict=False)
    return sae


def _settings(architecture: str, kind: type[SAE], config: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's settings of an autoencoder that SAELens trained."""
    if architecture in CODERS:
        transcodes = {"d_out": int(config["d_out"])} if "transcoder" in architecture else {"k": int(config["k"])}
        return {"activation": CODERS[architecture], "skip": "skip" in architecture} | transcodes
    if architecture == "temporal":
        normalised = config.get("normalize_activations") == "constant_scalar_rescale"
        return {
            "n_heads": config["n_heads"],
            "n_layers": config["n_attn_layers"],
            "bottleneck": config["bottleneck_factor"],
            "k": config.get("kval_topk") if config["sae_diff_type"] == "topk" else None,
            "tied": config["tied_weights"],
            "subtracts_bias": config.get("apply_b_dec_to_input", True),
            "scale": config["activation_normalization_factor"] if normalised else 1.0,
        }
    if architecture == "matching_pursuit":
        return {name: config[name] for name in ("residual_threshold", "max_iterations", "stop_on_duplicate_support")}
    wanted = {
        "topk": lambda: {"k": int(config["k"])},
        "batchtopk": lambda: {"k": config["k"]},
        "matryoshka_batchtopk": lambda: {"k": config["k"], "widths": config["matryoshka_widths"]},
        "transcoder": lambda: {"d_out": int(config["d_out"])},
        "skip_transcoder": lambda: {"d_out": int(config["d_out"])},
        "crosscoder": lambda: {"n_layers": int(config["n_layers"])},
    }
    return wanted[kind.architecture]() if kind.architecture in wanted else {}


def _site(name: str, where: str) -> Site:
    try:
        return Site.parse(name)
    except InvalidArgument as error:
        raise UnknownSite(f"{where} was trained at '{name}': {error}; give what it is here by site=..") from error


def _remember(sae: SAE, metadata: Mapping[str, Any], where: str, site: Site | None) -> None:
    """Put back what the metadata says of the autoencoder's origin."""
    names = metadata.get("sites") or [
        name for name in (metadata.get("hook_name"), metadata.get("hook_name_out")) if name
    ]
    sae.sites = tuple(_site(name, where) for name in names) if site is None else (site,)
    sae.model_name, sae.fingerprint = metadata.get("model_name"), metadata.get("fingerprint")
    sae.dataset = metadata.get("dataset") or metadata.get("dataset_path")
    if (largest := metadata.get("max_activation")) is None:
        return
    found = torch.as_tensor(largest, dtype=torch.float32)
    if found.shape != (sae.d_sae,) or not bool(found.isfinite().all()):
        raise DamagedFile(
            f"{where} has {len(found) if found.ndim else 1} largest activations for {sae.d_sae} latents, or some that "
            "are not finite: save the autoencoder again"
        )
    sae.max_activation.copy_(found)
