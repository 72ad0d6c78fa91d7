"""Digests read all that they are given: two things that differ anywhere have two."""

from dataclasses import replace

import torch

from interp.common.digests import DataDigest
from interp.features import Concept
from interp.features.search.concept import Mention


def digest_of(item: object) -> str:
    digest = DataDigest()
    digest.add([[item]])
    return digest.hexdigest()


CONCEPT = Concept(
    "fog",
    [f"text {number}" for number in range(9)],
    [number < 5 for number in range(9)],
    [(Mention(0, 4, "name"), Mention(5, 6, "alias")) if number < 5 else () for number in range(9)],
    [f"group {number}" for number in range(9)],
    ["alias"],
)


def test_a_concept_that_differs_in_one_text_label_mention_group_or_form_has_another_digest() -> None:
    last = (Mention(0, 4, "name"), Mention(5, 6, "name"))
    others = [
        replace(CONCEPT, name="sea"),
        replace(CONCEPT, texts=(*CONCEPT.texts[:8], "text 9")),
        replace(CONCEPT, labels=(*CONCEPT.labels[:5], True, *CONCEPT.labels[6:])),
        replace(CONCEPT, mentions=(*CONCEPT.mentions[:4], last, *CONCEPT.mentions[5:])),
        replace(CONCEPT, groups=(*CONCEPT.groups[:8], "group 7")),
        replace(CONCEPT, apart=("name",)),
    ]
    assert len({digest_of(one) for one in (CONCEPT, *others)}) == 7
    assert digest_of(CONCEPT) == digest_of(replace(CONCEPT))


def test_a_tensor_inside_what_is_digested_counts_with_every_number() -> None:
    x = torch.zeros(5000)
    y = x.clone()
    y[2500] = 1.0
    assert repr(x) == repr(y)
    assert len({digest_of({"x": one}) for one in (x, y, x[:, None])}) == 3
    assert digest_of({"x": x.numpy()}) != digest_of({"x": y.numpy()})
