"""A page of latents that needs nothing but itself, and shows every text as it is."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from markupsafe import Markup

from interp.common.statistics import Estimate
from interp.features import Evidence, Example, FeatureIndex, Record, SearchResult
from interp.show import browse, concept_page, record_html
from interp.show.html import Html


def record(latent: int, fired: bool = True) -> Record:
    example = Example(4, ("a ", "<b>fog</b>", ' & "sea"'), (0.0, 2.0, 1.0), 1)
    counts = torch.zeros(40, dtype=torch.long)
    counts[19], counts[39] = 5, 1
    evidence = Evidence(
        latent=latent,
        examples=(example,) if fired else (),
        counts=counts if fired else torch.zeros_like(counts),
        edges=torch.linspace(0, 2.0 if fired else 0.0, 41),
        firing_rate=0.25 if fired else 0.0,
        mean=1.5,
        largest=2.0,
        tokens=24,
        promoted=((" bay", 1.5),),
        suppressed=(("<i>", -2.5),),
    )
    return Record(
        evidence, (example,) * fired, 2.5, (("fog", 0.75),), 0.0, torch.zeros(16, dtype=torch.long), ((3, 0.5),)
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeatureIndex:
    """In place of an index; latent 9 never fires."""
    monkeypatch.setattr(FeatureIndex, "records", lambda self, latents: [record(i, i != 9) for i in latents])
    return FeatureIndex(tmp_path, {"model": "m<1>", "site": "resid_post.1", "tokens": 1234, "texts": 56})


@pytest.fixture
def page(index: FeatureIndex, tmp_path: Path) -> str:
    return browse(tmp_path / "p.html", index, [2, 3, 9], lambda r: f"label <{r.latent}>").read_text("utf-8")


class Reader(HTMLParser):
    """A page's tags and text, with every tag closed in turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "rect", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def bodies(page: str) -> list[str]:
    packed = re.search(r'<script type="application/json" id="bodies">(.*?)</script>', page, flags=re.S)
    assert packed is not None
    return json.loads(packed[1])


def test_the_page_fetches_nothing_and_every_tag_is_closed(page: str) -> None:
    for part in (page, *bodies(page)):
        read = Reader(part)
        assert read.open == []
        assert not [a for _, a in read.tags if str(a.get("src", a.get("href", "#")))[:1] not in "#d"]
        assert "http" not in part


def test_texts_are_shown_as_they_are_and_values_are_on_hover(page: str) -> None:
    assert "label <2>" in Reader(page).text and "m<1>" in Reader(page).text
    read = Reader(bodies(page)[0])
    assert "<b>fog</b>" in read.text and ' & "sea"' in read.text
    assert {a["title"] for t, a in read.tags if t == "span" and a.get("class") == "t"} == {"2", "1"}


def test_a_text_that_would_end_the_script_does_not(
    index: FeatureIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "</script><script>alert(1)</script><!--"
    monkeypatch.setattr("interp.show.collapsible_list.record_body", lambda *_: Markup(hostile))
    page = browse(tmp_path / "p.html", index, [2], lambda _: hostile).read_text("utf-8")
    assert bodies(page) == [hostile] and hostile not in page and Reader(page).open == []


def test_every_latent_is_a_fold_of_its_own_that_a_link_reaches(page: str) -> None:
    assert [a["id"] for t, a in Reader(page).tags if t == "details"] == ["latent-2", "latent-3", "latent-9"]
    first, _, never = map(Reader, bodies(page))
    assert {a["href"] for t, a in first.tags if t == "a"} == {"#latent-3"}
    assert "Latent 9 never fires on these texts." in never.text


def test_a_latent_that_is_not_on_the_page_is_named_and_no_link(index: FeatureIndex, tmp_path: Path) -> None:
    alone = browse(tmp_path / "p.html", index, [2], lambda _: "").read_text("utf-8")
    read = Reader(bodies(alone)[0])
    assert "Fires with latents 3 (0.50)" in read.text and not [t for t, _ in read.tags if t == "a"]
    assert "href" not in record_html(record(2), "")._repr_html_()


def test_the_histogram_has_a_bar_for_every_bin_that_counts_something(page: str) -> None:
    heights = [[float(a["height"]) for t, a in Reader(body).tags if t == "rect"] for body in bodies(page)]
    assert heights == [[40.0, 8.0], [40.0, 8.0], []]


def test_a_notebook_shows_the_same_and_a_page_needs_latents_and_a_name(index: FeatureIndex, tmp_path: Path) -> None:
    shown = record_html(record(2), "x")
    assert isinstance(shown, Html) and bodies_of(index, tmp_path)[0] in shown._repr_html_()
    with pytest.raises(ValueError, match="0 latents were given"):
        browse(tmp_path / "p.html", index, [], str)
    with pytest.raises(ValueError, match=r"let the name end in \.html"):
        browse(tmp_path / "p.pdf", index, [2], str)


def bodies_of(index: FeatureIndex, folder: Path) -> list[str]:
    return bodies(browse(folder / "again.html", index, [2], str).read_text("utf-8"))


def test_a_concepts_page_ranks_latents_next_to_probes_and_opens_each(
    found: SearchResult, index: FeatureIndex, tmp_path: Path
) -> None:
    page = concept_page(tmp_path / "c.html", found, index, lambda r: f"label {r.latent}").read_text("utf-8")
    read = Reader(page)
    folds = [a["id"] for t, a in read.tags if t == "details"]
    assert folds == ["latent-7", "latent-9"]
    assert {a["href"] for t, a in read.tags if t == "a"} == {"#latent-7", "#latent-9"}
    assert read.text.index("difference of means") and "p = 0.005" in read.text and "<bridge>" in read.text
    assert "F1 0.950 (0.80 to 1.00) above 1.50: precision 0.90" in Reader(bodies(page)[0]).text


def test_a_concepts_page_says_when_a_probe_is_the_better_tool_and_when_nothing_was_found(
    found: SearchResult, tmp_path: Path
) -> None:
    from dataclasses import replace

    weak = replace(found, against={"difference of means": Estimate(0.05, 0.01, 0.09, 40)})
    said = Reader(concept_page(tmp_path / "c.html", weak).read_text("utf-8")).text
    assert "Difference of means is the better tool here: on the same texts its F1 less the latent's is +0.05" in said
    even = replace(found, against={"difference of means": Estimate(0.05, -0.01, 0.09, 40)})
    said = Reader(concept_page(tmp_path / "c.html", even).read_text("utf-8")).text
    assert "No baseline is clearly better" in said and "+0.05 (-0.01 to +0.09)" in said
    said = Reader(concept_page(tmp_path / "c.html", replace(found, p_value=0.4)).read_text("utf-8")).text
    assert "nothing was found" in said and "<details" not in said
