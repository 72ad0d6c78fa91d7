"""A loaded transformer and its tokenizer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hooks.errors import nearest
from hooks.fingerprint import fingerprint
from hooks.forward import forward
from hooks.generate import decode
from hooks.layout import blocks, find, taps
from hooks.resolve import component_paths
from hooks.running import Running
from hooks.site import Site, mlp_act, mlp_out
from hooks.taps import Tap
from hooks.tokens import Tokens, pad, special_ids, tokenize


@final
class Model:
    """A transformer whose sites can be captured and changed. Made by `load`.

    Attributes:
        hf: the Hugging Face model, in evaluation mode; every hook sits on its own modules.
        tokenizer: its tokenizer, or None.
        name: where it came from.
        n_layers, n_heads, d_model, d_head, d_mlp, d_vocab: its dimensions.
        fingerprint: SHA-256 of configuration and weights when it was loaded.
        taps: where each site sits.

    Example:
        ```python
        model = load("gpt2")
        model.generate("The Golden Gate Bridge is in", max_new_tokens=5)
        ```
    """

    def __init__(self, hf: Any, tokenizer: Any, name: str) -> None:
        self.hf = hf.eval()
        self.tokenizer = tokenizer
        self.name = name
        paths = component_paths(hf)
        self.taps: Mapping[Site, Tap] = taps(hf, paths)
        self._final_norm = find(hf, paths.top.get("ln_final"))
        config = hf.config.get_text_config()
        self.n_layers = len(blocks(hf, paths))
        self.n_heads = int(config.num_attention_heads)
        self.d_model = int(config.hidden_size)
        self.d_head = int(getattr(config, "head_dim", None) or self.d_model // self.n_heads)
        self.d_vocab = int(config.vocab_size)
        self.fingerprint = fingerprint(hf)
        self.running = Running(hf, special_ids(tokenizer))

    def __repr__(self) -> str:
        kind = type(self.hf).__name__
        return f"Model({self.name!r}, {kind}, {self.n_layers} layers, d_model {self.d_model})"

    @property
    def d_mlp(self) -> int:
        """How many memory coefficients the first feed-forward layer with some has."""
        return next(tap.shape[0] for site, tap in self.taps.items() if site.name == "mlp_act")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.hf.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.hf.parameters()).dtype

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site of this model, in the order of the forward pass."""
        return tuple(self.taps)

    def tokens(self, text: str | Sequence[str] | Tensor | Tokens) -> Tokens:
        """Tokenise text, with the special tokens the tokenizer adds, padded on the side it pads on.

        Args:
            text: a text, texts, token ids of shape [pos] or [batch pos], or ready `Tokens`.

        Raises:
            ValueError: no texts, a text without tokens, ids outside the vocabulary.

        Example:
            ```python
            model.tokens(["The Golden Gate Bridge", "Fog"]).mask
            ```
        """
        if isinstance(text, Tokens):
            found = text
        elif isinstance(text, Tensor):
            found = self._from_ids(text)
        else:
            side = "right" if self.tokenizer is None else self.tokenizer.padding_side
            found = tokenize(self.tokenizer, [text] if isinstance(text, str) else list(text), side)
        return found.to(self.device)

    def _from_ids(self, ids: Tensor) -> Tokens:
        if ids.ndim not in (1, 2) or ids.is_floating_point() or ids.dtype == torch.bool or not ids.numel():
            raise ValueError(
                f"token ids are integers of shape [pos] or [batch pos], got {ids.dtype} {tuple(ids.shape)}"
            )
        if int(ids.min()) < 0 or int(ids.max()) >= self.d_vocab:
            raise ValueError(
                f"token ids lie in 0..{self.d_vocab - 1}, got {int(ids.min())}..{int(ids.max())}"
            )
        return pad(self.tokenizer, ids.reshape(-1, ids.shape[-1]).tolist(), "right")

    def run(self, text: str | Sequence[str] | Tensor | Tokens) -> Float[Tensor, "batch pos vocab"]:
        """Return the logits of one forward pass, under the caller's grad mode.

        Raises:
            ValueError: the model has no output embeddings, or the text is too long.

        Cost: one forward pass.

        Example:
            ```python
            model.run("The Golden Gate Bridge is in").argmax(-1)
            ```
        """
        if self.hf.get_output_embeddings() is None:
            raise ValueError(
                f"{type(self.hf).__name__} has no output embeddings, so no logits: load the model with its head"
            )
        tokens = self.tokens(text)
        with self.running.reading(tokens):
            return forward(self.hf, tokens).logits

    def generate(
        self, prompt: str | Sequence[str], *, max_new_tokens: int = 40, temperature: float = 0.0, seed: int = 0
    ) -> str | list[str]:
        """Return the continuation of a prompt (a string), or of several (a list).

        Decodes with a KV cache; active interventions see the prompt first and then each new token.

        Args:
            prompt: a text or texts.
            max_new_tokens: how many tokens to add at most.
            temperature: 0 decodes greedily.
            seed: of the sampling.

        Raises:
            ValueError: prompt and continuation do not fit into the context.

        Cost: one forward pass over the prompts and one over a single token per new token.

        Example:
            ```python
            model.generate("I am", max_new_tokens=20)
            ```
        """
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        tokens = tokenize(self.tokenizer, texts, "left").to(self.device)
        with self.running.reading(tokens):
            new = decode(
                self.hf,
                tokens,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                stop=self._stop(),
            )
        given = [ids[mask].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]
        continued = [self._continuation(old, more) for old, more in zip(given, new, strict=True)]
        return continued[0] if isinstance(prompt, str) else continued

    def _stop(self) -> frozenset[int]:
        listed = self.hf.generation_config.eos_token_id
        listed = listed if isinstance(listed, list) else [listed]
        return frozenset(one for one in (*listed, self.tokenizer.eos_token_id) if one is not None)

    def _continuation(self, given: list[int], new: list[int]) -> str:
        """Decode together and cut: decoded alone, a continuation can lose its leading space."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        before = self.tokenizer.decode(given, **options)
        whole = self.tokenizer.decode(given + new, **options)
        return whole[len(before) :] if whole.startswith(before) else self.tokenizer.decode(new, **options)

    def tap(self, site: Site) -> Tap:
        """Return where a site sits.

        Raises:
            ValueError: this model has no such site; the message says why and names the nearest.

        Example:
            ```python
            model.tap(resid_post[0]).shape
            ```
        """
        if site not in self.taps:
            raise ValueError(self._missing(site))
        return self.taps[site]

    def _missing(self, site: Site) -> str:
        names = {have.name for have in self.taps}
        if site.name == "resid_mid" and site.name not in names:
            return (
                f"{self.name} ({type(self.hf).__name__}) has no resid_mid: attention and feed-forward run in "
                "parallel, so the stream has no middle; use resid_pre, resid_post, attn_out or mlp_out"
            )
        if site.name in names and site.layer is not None and site.layer >= self.n_layers:
            return (
                f"{site} is out of range: {self.name} has {self.n_layers} layers, "
                f"so the last is {site.name}.{self.n_layers - 1}"
            )
        near = nearest(str(site), map(str, self.taps))
        return (
            f"{self.name} ({type(self.hf).__name__}) has no {site}; the nearest are {near}. "
            "`model.sites` lists every site of a model"
        )

    def module(self, site: Site) -> nn.Module:
        """Return the Hugging Face module a site sits on.

        Example:
            ```python
            model.module(attn_out[0])
            ```
        """
        return self.tap(site).module

    def mlp_output(self, layer: int) -> nn.Module:
        """Return the output projection of a feed-forward layer, whose weight memory edits change.

        Example:
            ```python
            model.mlp_output(3).weight.shape
            ```
        """
        self.tap(mlp_out[layer])
        return self.tap(mlp_act[layer]).module

    def w_out(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """Return the weight of a feed-forward output projection as a view W with mlp_act @ W = mlp_out.

        Changing it in place changes the model. Row i is the value of memory i (Geva et al. 2021).

        Example:
            ```python
            model.w_out(3).shape
            ```
        """
        projection = self.mlp_output(layer)
        weight = projection.get_parameter("weight")
        return weight.T if isinstance(projection, nn.Linear) else weight

    def unembed(self, resid: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Return the logits a final residual stream leads to: final norm, unembedding and soft-cap.

        Example:
            ```python
            model.unembed(capture(model, "Fog", resid_post[model.n_layers - 1])[resid_post[model.n_layers - 1]])
            ```
        """
        head = self.hf.get_output_embeddings()
        if head is None or self._final_norm is None:
            raise ValueError(f"{type(self.hf).__name__} has no final norm and output embeddings to unembed with")
        if self.hf.config.model_type == "bert":
            return self.hf.cls(resid)
        logits = head(self._final_norm(resid))
        config = self.hf.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        return logits if cap is None else cap * (logits / cap).tanh()


def chosen(model: Model, sites: Site | str | Iterable[Site | str]) -> tuple[Site, ...]:
    """Return the sites asked for, each checked against the model and named once.

    Raises:
        ValueError: an unknown site, or none at all.

    Example:
        ```python
        chosen(model, ["resid_post.0", logits])
        ```
    """
    listed = [sites] if isinstance(sites, Site | str) else list(sites)
    parsed = [Site.parse(site) if isinstance(site, str) else site for site in listed]
    if not parsed:
        raise ValueError("no sites were asked for: name at least one, such as resid_post[0]")
    for site in parsed:
        if not isinstance(site, Site):
            raise TypeError(f"expected a Site such as resid_post[0], got {site!r}")
        model.tap(site)
    return tuple(dict.fromkeys(parsed))
