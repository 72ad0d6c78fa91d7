"""Sites are values, and a wrong name never becomes one."""

from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import pytest

from hooks import Activations, Model, Site, capture, capture_gradients, intervene
from hooks.errors import UnknownSite
from hooks.interventions import scale
from hooks.position import last as last_token
from hooks.site import (
    _IN_LAYERS,
    NAMES,
    check_one_width,
    decoder,
    embed,
    encoder,
    expert_act,
    find_sites,
    logits,
    match,
    mlp_act,
    mlp_in,
    resid_post,
    resolve_layer,
    z,
)
from hooks.site_names import site_names
from interp.directions import Pairs, caa
from interp.sae import activations_of
from probes import gather


def test_a_site_prints_as_its_short_name_and_is_read_back_from_it() -> None:
    for site in (resid_post[6], z[0], mlp_act[11], embed, logits):
        assert Site.parse(str(site)) == site


def test_a_site_is_read_from_the_name_transformer_lens_gives_it() -> None:
    for name in NAMES:
        site = Site(name, 12) if name in _IN_LAYERS else Site(name)
        assert Site.parse(site.transformer_lens_name) == site
    assert Site.parse("blocks.6.hook_resid_post") == resid_post[6]
    assert Site.parse("hook_embed") == embed
    assert Site.parse("ln_final.hook_scale") == Site("ln_final_scale")


def test_the_normalised_input_of_the_feed_forward_before_its_gain_is_no_site_and_is_not_taken_for_mlp_in() -> None:
    assert Site.parse("blocks.6.mlp.hook_in") == mlp_in[6]
    for read in (Site.parse, lambda text: match(text, (mlp_in[6],))):
        with pytest.raises(ValueError, match=r"no site is called .* it is mlp_in .* without the gain and bias"):
            read("blocks.6.ln2.hook_normalized")


def test_brackets_and_dots_name_the_same_site() -> None:
    assert Site.parse("resid_post[3]") == Site.parse("resid_post.3") == resid_post[3]


def test_an_expert_is_named_by_brackets_or_dots_and_a_stack_by_what_comes_before() -> None:
    one = Site("expert_act", 3, expert=1)
    for text in ("expert_act.3.1", "expert_act[3, 1]", "expert_act[3,1]", "expert_act[3].1"):
        assert Site.parse(text) == one == expert_act[3, 1] and str(one) == "expert_act.3.1"
    assert Site.parse("decoder.expert_act[3, 1]") == Site("expert_act", 3, "decoder", expert=1)
    assert Site.parse("expert_act.3").expert is None
    assert one.transformer_lens_name == "blocks.3.mlp.experts.1.hook_post"


def test_a_name_that_no_module_has_is_refused_with_a_model_too(llama: Model) -> None:
    with pytest.raises(ValueError, match=r"no site is called 'resid_pots\.3'"):
        Site.parse("resid_pots.3", llama)
    for layer in range(llama.n_layers):
        assert Site.parse(f"model.layers.{layer}", llama) == resid_post[layer]


def test_a_layer_counted_from_the_last_of_none_is_refused() -> None:
    with pytest.raises(UnknownSite, match="counts from the last of 0 layers: count from 0"):
        resolve_layer(z[-1], (embed, encoder.resid_post[3]))
    assert resolve_layer(z[-4], (z[3], embed)) == z[0] and resolve_layer(z[0], ()) == z[0]


def test_a_pattern_has_no_one_width_and_its_values_are_named_instead() -> None:
    check_one_width([z[0], embed])
    for site, instead in ((Site("pattern", 2), "z.2"), (Site("cross_pattern", 1, "decoder"), "decoder.cross_z.1")):
        with pytest.raises(ValueError, match=f"{site} has a width .*: take {instead}, or capture"):
            check_one_width([z[0], site])


def test_what_else_sites_are_called_counts_the_layers_of_each_stack() -> None:
    taps = {one: SimpleNamespace(module=one) for one in (z[2], z[0], embed, encoder.resid_post[0], resid_post[1])}
    inside = [("a", taps[resid_post[1]].module), ("b", taps[z[2]].module), ("c", 3)]
    names = site_names(SimpleNamespace(named_modules=lambda: inside), taps)
    assert names.layers == {"": 3, "encoder": 1} and names.blocks == {"a": "resid_post.1"}
    assert names.find(z[-1]) == z[2] and names.find(z[-3]) == names.find(z[0]) == z[0]
    assert names.find("encoder.resid_post[-1]") == encoder.resid_post[0] and names.find("a") == resid_post[1]
    with pytest.raises(UnknownSite, match="counts from the last of 3 layers"):
        names.find(z[-4])
    with pytest.raises(ValueError, match="how many there are is not known here"):
        names.find(decoder.resid_post[-1])


def test_equal_sites_are_one_key() -> None:
    assert len({resid_post[1], Site("resid_post", 1), Site.parse("resid_post.1"), resid_post[2]}) == 2


@pytest.mark.parametrize("text", ["resid_pots.3", "blocks.3.hook_resid_pots", "resid_pst[3]"])
def test_a_misspelt_site_is_answered_with_the_nearest_and_with_where_all_are_listed(text: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean .*resid_post.*`model\.sites` lists every site"):
        Site.parse(text)


def test_a_misspelt_site_gets_three_suggestions() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'resid_\w+\.0', 'resid_\w+\.0' or 'resid_\w+\.0'\?"):
        Site.parse("resid_p.0")


@pytest.mark.parametrize("text", ["", "3", "resid_post", "logits.3", "resid_post.-1", "resid_post.1.2", "resid_post.x"])
def test_what_is_no_site_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no site|needs a layer|not in a layer"):
        Site.parse(text)


def test_a_layer_is_needed_where_there_are_layers_and_refused_where_there_are_none() -> None:
    with pytest.raises(ValueError, match=r"resid_post needs a layer counted from 0, got None: write resid_post\[0\]"):
        Site("resid_post")
    with pytest.raises(ValueError, match="logits is not in a layer, got layer 2: write logits"):
        Site("logits", 2)


def test_a_layer_can_be_counted_from_the_last() -> None:
    there = (resid_post[0], resid_post[1], Site("resid_post", 0, "encoder"))
    assert find_sites([resid_post[-1], "resid_post[-2]", "encoder.resid_post[-1]"], there) == (
        there[1],
        there[0],
        there[2],
    )
    with pytest.raises(ValueError, match="counts from the last of 2 layers"):
        find_sites(resid_post[-3], there)


def test_a_site_of_one_stack_of_several_says_which() -> None:
    assert str(encoder.resid_post[3]) == "encoder.resid_post.3"
    for text in ("encoder.resid_post.3", "encoder.resid_post[3]", "encoder.blocks.3.hook_resid_post"):
        assert Site.parse(text) == encoder.resid_post[3]
    assert encoder.resid_post[3] not in (resid_post[3], decoder.resid_post[3])


def test_any_module_is_a_site_of_its_output_or_input() -> None:
    out, read = Site.module("model.layers.3.mlp"), Site.module("model.layers.3.mlp", "input")
    assert (str(out), str(read)) == ("module(model.layers.3.mlp)", "module(model.layers.3.mlp, input)")
    assert Site.parse(str(out)) == out and Site.parse(str(read)) == read and out != read


def test_a_name_without_its_layer_is_no_sequence_of_sites_and_brackets_are_no_glob(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # it would speak first
    for asked in (resid_post, [embed, resid_post]):
        with pytest.raises(TypeError, match=r"resid_post needs a layer: write resid_post\[0\], or 'resid_post\.\*'"):
            find_sites(asked, (resid_post[0],))
    with pytest.raises(TypeError, match="not iterable"):
        list(resid_post)  # pyright: ignore[reportArgumentType]
    assert find_sites("resid_post[1]", (resid_post[0], resid_post[1])) == (resid_post[1],)
    assert find_sites("resid_post.[01]", (resid_post[0], resid_post[1])) == (resid_post[0], resid_post[1])


def test_a_glob_selects_sites_by_either_name() -> None:
    sites = (embed, resid_post[0], z[0], resid_post[1])
    assert match("resid_post.*", sites) == match("blocks.*.hook_resid_post", sites) == (resid_post[0], resid_post[1])
    with pytest.raises(ValueError, match="no site is called 'resid_pots"):
        match("resid_pots.*", sites)


def test_a_layer_counted_from_the_last_and_a_blocks_own_module_are_keys_of_what_was_captured(
    llama: Model, tmp_path: Path
) -> None:
    last = resid_post[llama.n_layers - 1]
    acts = capture(llama, "Fog", [resid_post[0], "model.layers.1", last, "model.layers.1.mlp"])
    acts.save(tmp_path / "acts.safetensors")
    for one in (acts, Activations.load(tmp_path / "acts.safetensors")):
        assert one[resid_post[-1]].equal(one[last]) and one["resid_post[-1]"].equal(one[last])
        assert one["model.layers.1"].equal(one[resid_post[1]])
        assert one.flat("resid_post[-3]").equal(one.flat(resid_post[0]))
        assert one["model.layers.1.mlp"].equal(one[Site.module("model.layers.1.mlp")])
        with pytest.raises(UnknownSite, match="counts from the last of 3 layers"):
            one[resid_post[-4]]


def test_the_last_layer_of_what_was_captured_is_not_taken_for_the_models_last(llama: Model) -> None:
    with pytest.raises(KeyError, match=f"resid_post.{llama.n_layers - 1} was not captured"):
        capture(llama, "Fog", [resid_post[0], resid_post[1]])[resid_post[-1]]


def test_gradients_and_receipts_have_the_same_keys(llama: Model) -> None:
    found = capture_gradients(llama, "Fog", resid_post[-1], lambda logits: logits[0, -1, 5])
    assert found.gradients[resid_post[-1]].equal(found.gradients[f"model.layers.{llama.n_layers - 1}"])
    with intervene(llama, {resid_post[-1]: scale(2.0)}) as receipt:
        llama.run("Fog")
    assert receipt[resid_post[-1]].fired == receipt[f"model.layers.{llama.n_layers - 1}"].fired == 1


def test_what_is_kept_names_a_site_by_the_number_of_its_layer(llama: Model) -> None:
    n = llama.n_layers - 1
    assert activations_of(llama, ["Fog"], resid_post[-1]).sites == (resid_post[n],)
    assert {site for site, _ in gather(llama, ["Fog", "Sea"], [resid_post[-1]], [last_token]).rows} == {resid_post[n]}
    assert caa(llama, Pairs(["Fog"], ["Sea"]), resid_post[-1], last_token).site == resid_post[n]


def test_a_misspelt_site_is_answered_in_its_own_layer_and_with_the_command_that_lists_them() -> None:
    with pytest.raises(ValueError, match=r"did you mean .*'resid_pos\w*\.3'.*`interp sites MODEL` prints them") as said:
        Site.parse("resid_pos.3")
    assert "resid_post.3" in str(said.value) and ".0" not in str(said.value)
