"""A page of latents that needs nothing but itself, and shows every text as it is."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from interp.features import Evidence, Example, FeatureIndex, Record
from interp.show import browse, record_html


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


class Fake:
    """Stands for an index."""

    about = {"model": "m<1>", "site": "resid_post.1", "tokens": 1234, "texts": 56}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(FeatureIndex, "record", lambda self, latent: record(latent, latent != 9))
    found = FeatureIndex(tmp_path, Fake.about)
    return browse(tmp_path / "p.html", found, [2, 3, 9], lambda r: f"label <{r.latent}>").read_text("utf-8")


class Reader(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_fetches_nothing_and_every_tag_is_closed(page: str) -> None:
    read = Reader(page)
    assert read.open == []
    assert not [a for _, a in read.tags if str(a.get("src", a.get("href", "#")))[:1] not in "#d"]
    assert "http" not in re.sub(r"<script>.*</script>", "", page, flags=re.S)


def test_texts_are_shown_as_they_are_and_values_stand_on_hover(page: str) -> None:
    read = Reader(page)
    assert "<b>fog</b>" in read.text and ' & "sea"' in read.text and "label <2>" in read.text and "m<1>" in read.text
    assert {a["title"] for t, a in read.tags if t == "span" and a.get("class") == "t"} == {"2", "1"}


def test_every_latent_is_a_fold_of_its_own_that_a_link_reaches(page: str) -> None:
    read = Reader(page)
    assert [a["id"] for t, a in read.tags if t == "details"] == ["latent-2", "latent-3", "latent-9"]
    assert {a["href"] for t, a in read.tags if t == "a"} == {"#latent-3"}
    assert "Latent 9 never fires on these texts." in read.text


def test_the_histogram_has_a_bar_for_every_bin_that_counts_something(page: str) -> None:
    heights = [float(a["height"]) for t, a in Reader(page).tags if t == "rect"]
    assert heights == [40.0, 8.0] * 2


def test_a_notebook_shows_the_same_and_a_page_needs_latents_and_a_name(tmp_path: Path) -> None:
    assert "Highest texts" in record_html(record(2), "x").text and "<b>fog</b>" not in record_html(record(2), "x").text
    with pytest.raises(ValueError, match=r"give some, and a path in \.html"):
        browse(tmp_path / "p.html", FeatureIndex(tmp_path, Fake.about), [], str)
