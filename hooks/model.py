"""A loaded transformer and its tokenizer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from hooks.absent import why_absent
from hooks.adapters import adapter_paths
from hooks.border import Natural
from hooks.contract.report import ContractReport, site_refusal, use_refusal
from hooks.encoding import as_texts, from_encoding, from_ids, special_ids, tokenize
from hooks.errors import InvalidArgument, UnknownSite, nearest
from hooks.experts import of_expert
from hooks.fingerprint import fingerprint
from hooks.forward import accepts, forward
from hooks.generate import Each, continuation, decode, stop_ids
from hooks.huggingface import HFModel, Tokenizer
from hooks.layout import blocks, find, find_paths, parts, taps
from hooks.offload import place_of
from hooks.running import PassTracker
from hooks.sharded_taps import share_taps
from hooks.site import NamedModules, Site, find_sites, mlp_act, resolve_layer
from hooks.site_names import site_names
from hooks.structure import Block, find_structure, vocabulary
from hooks.taps import Tap
from hooks.tokens import Tokens
from hooks.unembed import check_head, unembed
from hooks.weights import matrix_of

Text = str | Sequence[str] | Shaped[Tensor, "..."] | Mapping[str, Any] | Tokens


@final
class Model:
    """A transformer whose sites can be captured and changed. Made by `load`.

    Attributes:
        hf: the Hugging Face model, in evaluation mode; every hook sits on its own modules.
        tokenizer: its tokenizer, or None.
        name: where it came from.
        n_layers, n_heads, d_model, d_head, d_mlp, d_vocab: its dimensions.
        fingerprint: SHA-256 of configuration and weights when it was loaded.
        structure: its stacks of blocks, and what each adds, as traced.
        paths: where its components are.
        site_names: what else its sites are called.
        blocks: its blocks.
        final_norm: the norm before the unembedding, or None.
        head: the part after the final norm that does more than unembed (BERT's), or None.
        taps: where each site sits, in the order of the forward pass.
        unshared: why some sites of a model that several processes compute cannot be gathered.
        contract: what `check` measured, or None before it did.
        running: the forward pass in flight.

    Examples:
        ```python
        model = load("gpt2")
        model.generate("The Golden Gate Bridge is in", max_new_tokens=5)
        ```
    """

    def __init__(self, hf: HFModel, tokenizer: Tokenizer, name: str) -> None:
        self.hf = hf.eval()
        found = find_structure(hf)
        self.paths = paths = find_paths(adapter_paths(hf), found, hf)
        shared = share_taps(hf, taps(hf, paths, found), found)
        self.structure = found = shared.structure
        self.tokenizer = tokenizer
        self.name = name
        self.taps: Mapping[Site, Tap] = shared.taps
        self.unshared = shared.refused
        self.site_names = site_names(hf, self.taps)
        self.blocks = blocks(hf, paths)
        self.final_norm = find(hf, paths.final_norm)
        self.head = None if found.head is hf.get_output_embeddings() else found.head
        self.contract: ContractReport | None = None
        self.n_layers = len(found.main)
        self.n_heads, self.d_head = self._heads()
        self.d_model = next(tap.shape[-1] for site, tap in self.taps.items() if site.name == "resid_post")
        self.d_mlp = next((tap.shape[0] for site, tap in self.taps.items() if site.name == "mlp_act"), 0)
        self.d_vocab = vocabulary(hf)
        self.fingerprint = fingerprint(hf)
        self.running = PassTracker(hf, special_ids(tokenizer))

    def _heads(self) -> tuple[int, int]:
        """How many heads attention has and how wide each is; 0 where it has none."""
        shapes = [tap.shape for site, tap in self.taps.items() if site.name == "z"]
        return (shapes[0][0], shapes[0][1]) if shapes else (0, 0)

    def __repr__(self) -> str:
        kind = type(self.hf).__name__
        return f"Model({self.name!r}, {kind}, {self.n_layers} layers, d_model {self.d_model})"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return place_of(self.hf)[0]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return place_of(self.hf)[1]

    @property
    def padding_side(self) -> str:
        """On which side the tokenizer pads."""
        return getattr(self.tokenizer, "padding_side", "right")

    @property
    def sites(self) -> tuple[Site, ...]:
        """Every site of this model that keeps its contract, in the order of the forward pass."""
        refused = self.contract.refused if self.contract else ()
        return tuple(site for site in self.taps if site not in refused)

    def tokens(self, text: Text) -> Tokens:
        """Tokenise text, with the special tokens the tokenizer adds, padded on the side it pads on.

        Args:
            text: a text, texts, token ids of shape [pos] or [batch pos], what the tokenizer or processor returned
                (padding is what its attention mask hides; its other tensors are handed on), or ready `Tokens`.

        Raises:
            InvalidType: a mapping, or a list of anything but texts.
            InvalidArgument: no texts, a text without tokens, ids outside the vocabulary.

        Examples:
            ```python
            model.tokens(["The Golden Gate Bridge", "Fog"]).mask
            ```
        """
        if isinstance(text, Tokens):
            return self._place_tokens(text)
        if isinstance(text, Tensor):
            return self._place_tokens(from_ids(self.tokenizer, text, self.d_vocab))
        if isinstance(text, Mapping) and "input_ids" in text:
            return self._place_tokens(
                self._add_inputs(from_encoding(self.tokenizer, text, self.d_vocab, self.padding_side))
            )
        return self._place_tokens(tokenize(self.tokenizer, as_texts(text), self.padding_side))

    def _add_inputs(self, tokens: Tokens) -> Tokens:
        """The same tokens with what else the model takes of what came with them."""
        taken = {name: one for name, one in tokens.more.items() if accepts(self.hf, name)}
        odd = [name for name in tokens.more if name not in taken and not name.endswith("token_type_ids")]
        odd += ["decoder_input_ids"] * (tokens.decoder is not None and not accepts(self.hf, "decoder_input_ids"))
        if odd:
            raise InvalidArgument(f"{self.name} ({type(self.hf).__name__}) takes no {' nor '.join(odd)}: leave it out")
        return replace(tokens, more=taken)

    def run(self, text: Text) -> Float[Tensor, "batch pos vocab"]:
        """Return the logits of one forward pass, under the caller's grad mode.

        Raises:
            InvalidArgument: the model has no output embeddings, or the text is too long.

        Cost: one forward pass.

        Examples:
            ```python
            model.run("The Golden Gate Bridge is in").argmax(-1)
            ```
        """
        check_head(self.hf)
        tokens = self.tokens(text)
        with self.running.reading(tokens):
            return forward(self.hf, tokens).logits

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        max_new_tokens: int = 40,
        temperature: float | int = 0.0,
        seed: Natural = 0,
        each: Each | None = None,
    ) -> str | list[str]:
        """Return the continuation of a prompt (a string), or of several (a list).

        Decodes with a KV cache; active interventions see the prompt first and then each new token.

        Args:
            prompt: a text or texts.
            max_new_tokens: how many tokens to add at most; an end-of-text token ends it sooner.
            temperature: 0 decodes greedily.
            seed: of the sampling.
            each: called after every new token with the ids that each prompt was continued by so far, as a page that
                shows text while it is made needs; what it raises ends the generation.

        Raises:
            InvalidType: a mapping, or a list of anything but texts.
            InvalidArgument: the model does not generate, prompt and continuation do not fit into the context, or a
                capture of texts padded on the other side is put back.

        Cost: one forward pass over the prompts and one over a single token per new token.

        Examples:
            ```python
            model.generate("I am", max_new_tokens=20)
            ```
        """
        if not self.hf.can_generate():
            raise InvalidArgument(f"{type(self.hf).__name__} does not generate: load a causal language model")
        texts = as_texts(prompt)
        self._check_use("cache", "decode token by token with model.run")
        tokens = self._place_tokens(tokenize(self.tokenizer, texts, "left"))
        if self.padding_side != "left" and not bool(tokens.mask.all()):
            self._check_no_capture_is_put_back()
        with self.running.reading(tokens):
            new = decode(
                self.hf,
                tokens,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                stop=stop_ids(self.hf, self.tokenizer),
                each=each,
            )
        given = [ids[mask].tolist() for ids, mask in zip(tokens.ids, tokens.mask, strict=True)]
        made = [continuation(self.tokenizer, old, more) for old, more in zip(given, new, strict=True)]
        return made[0] if isinstance(prompt, str) else made

    def _check_no_capture_is_put_back(self) -> None:
        for site, chain in self.running.active.items():
            for one in chain:
                if one.batched and one.value is not None and one.value.ndim == 2 + len(self.tap(site).shape):
                    raise InvalidArgument(
                        f"{one} at {site} puts back a capture, and generate pads on the left where "
                        f"{self.name} was captured with padding on the right: generate from texts one by one, or "
                        "load the model with a tokenizer that pads on the left"
                    )

    def _check_use(self, use: str, instead: str) -> None:
        if self.contract is not None and use in self.contract.unfit:
            raise InvalidArgument(use_refusal(self.contract, use, instead))

    def _place_tokens(self, tokens: Tokens) -> Tokens:
        """The same tokens on the model's device, unless its contract forbids such a batch."""
        for use, filled in (("left padding", tokens.mask[:, 0]), ("right padding", tokens.mask[:, -1])):
            if not bool(filled.all()):
                self._check_use(use, "pass texts of equal length, or one by one")
        if len(tokens) > 1:
            self._check_use("batch", "pass texts one by one")
        return tokens.to(self.device)

    def tap(self, site: Site) -> Tap:
        """Return where a site sits.

        Raises:
            InvalidArgument: this model has no such site, or the site breaks its contract; the message says why and
                names the nearest.

        Examples:
            ```python
            model.tap(resid_post[0]).shape
            ```
        """
        site = resolve_layer(site, self.taps)
        if site.expert is not None:
            return of_expert(self.tap(replace(site, expert=None)), site.expert)
        if site in self.unshared:
            raise UnknownSite(
                f"{self.name} ({type(self.hf).__name__}) has {site} in parts, one in each process, that cannot be "
                f"gathered: {self.unshared[site]}; load the model whole, or name a site around it"
            )
        if site not in self.taps and site.path:
            return self._module_tap(site)
        if site not in self.taps:
            called = f"{self.name} ({type(self.hf).__name__})"
            raise InvalidArgument(why_absent(called, site, tuple(self.taps), self.structure))
        if self.contract is not None and site in self.contract.refused:
            raise InvalidArgument(site_refusal(self.contract, site, self.sites))
        return self.taps[site]

    def parts(self, block: Block | int) -> Mapping[str, nn.Module]:
        """Return the modules of a block by TransformerLens's names (`attn.o`, `mlp.out`, …): traced, and hinted.

        Examples:
            ```python
            model.parts(0)["attn.o"]
            ```
        """
        block = self.structure.main[block] if isinstance(block, int) else block
        return {**block.part, **(parts(block.module, self.paths) if not block.stack and not block.repeated else {})}

    def _module_tap(self, site: Site) -> Tap:
        """Return the tap of what a module gives or is given."""
        found = self.structure.modules
        if site in found:
            return found[site]
        if site.path in self.structure.repeated:
            why = "its module runs more than once in a pass, and a site is one value: name a module that holds it"
        elif find(self.hf, site.path) is None:
            why = f"it has no module of that name; the nearest are {nearest(site.path, (one.path for one in found))}"
        else:
            why = "its module is not run by a pass over tokens, or has no [batch pos d] there"
        raise UnknownSite(f"{self.name} ({type(self.hf).__name__}) has no {site}: {why}")

    def module(self, site: Site) -> nn.Module:
        """Return the Hugging Face module a site sits on.

        Examples:
            ```python
            model.module(attn_out[0])
            ```
        """
        return self.tap(site).module

    def w_out(self, layer: int) -> Float[Tensor, "d_mlp d_model"]:
        """Return the weight W of a feed-forward output projection, with mlp_act @ W (+ bias) = its output.

        Row i is the value of memory i (Geva et al. 2021, arXiv:2012.14913, equation 2). Of a plain weight it is a view,
        and changing it in place changes the model; of one that is offloaded, adapted or quantised it is a copy, and
        `hooks.weights.write_matrix` changes the model.

        Examples:
            ```python
            model.w_out(3).shape
            ```
        """
        return matrix_of(self.module(mlp_act[layer]))

    def unembed(self, resid: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n vocab"]:
        """Return the logits a final residual stream leads to: final norm, unembedding, scaling and soft-cap.

        Raises:
            InvalidArgument: the model has no output embeddings, or they break its contract.

        Examples:
            ```python
            model.unembed(acts[resid_post[model.n_layers - 1]])
            ```
        """
        self._check_use("unembed", "capture logits instead")
        norm = self.final_norm if self.head is None else self.structure.final_norm
        return unembed(self.hf, norm, resid, self.head)


@runtime_checkable
class HasSites(NamedModules, Protocol):
    """A model of any kind, as far as its sites go."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """Those that keep its contract."""
        ...

    def tap(self, site: Site) -> Tap:
        """Return where a site sits."""
        ...


def resolve_sites(model: HasSites, sites: Site | str | Iterable[Site | str]) -> tuple[Site, ...]:
    """Return the sites asked for, by themselves or by globs, each checked against the model and named once.

    Raises:
        InvalidArgument: an unknown site, a glob that matches none, or none at all.

    Examples:
        ```python
        resolve_sites(model, ["resid_post.*", logits])
        ```
    """
    found = find_sites(sites, model.sites, model)
    if not found:
        raise InvalidArgument("no sites were asked for: name at least one, such as resid_post[0]")
    for site in found:
        model.tap(site)
    return found
