"""A dictionary's map as a page: a circle per latent, its label on hover, search, and keys to walk it by."""

from collections.abc import Collection, Mapping
from pathlib import Path

from markupsafe import Markup

from interp.features import DictionaryMap
from interp.show.frame import render_page, save_page
from interp.show.html import Html, read_source, render

WIDTH, HEIGHT, EDGE = 1000.0, 720.0, 16.0


def map_html(drawn: DictionaryMap, labels: Mapping[int, str], marked: Collection[int] = ()) -> Html:
    """The map alone, for a notebook; latents in `marked` are red.

    Examples:
        ```python
        map_html(map_dictionary(sae), {i: describe(found.record(i)) for i in range(len(found))})
        ```
    """
    return Html(_draw(drawn, labels, marked, about=str(drawn)))


def map_page(
    path: str | Path,
    drawn: DictionaryMap,
    labels: Mapping[int, str],
    *,
    title: str = "A map of the dictionary",
    marked: Collection[int] = (),
    page: str = "",
) -> Path:
    """Write the map as a self-contained page and return where it is.

    A search finds latents by number or label, marks and lists them; a click, or the arrow keys, choose one. `page` is
    the address of a page of `browse`, to which the chosen latent is linked.

    Raises:
        InvalidArgument: a name that does not end in `.html`.

    Examples:
        ```python
        map_page("map.html", map_dictionary(sae), labels, marked=[found.best.latent], page="latents.html")
        ```
    """
    drawing = _draw(drawn, labels, marked, page=page)
    values = {"marked": bool(marked), "drawing": drawing, "about": str(drawn), "walk": read_source("map.js")}
    return save_page(path, render_page("map.html", title, **values))


def _draw(
    drawn: DictionaryMap, labels: Mapping[int, str], marked: Collection[int], *, page: str = "", about: str = ""
) -> Markup:
    low, high = drawn.xy.amin(0), drawn.xy.amax(0)
    span = (high - low).clamp(min=1e-9)
    scale = min((WIDTH - 2 * EDGE) / float(span[0]), (HEIGHT - 2 * EDGE) / float(span[1]))
    at = (drawn.xy - (low + high) / 2) * scale
    circles = [
        {
            "latent": latent,
            "label": labels.get(latent, "no label"),
            "marked": latent in marked,
            "x": x + WIDTH / 2,
            "y": HEIGHT / 2 - y,
        }
        for latent, (x, y) in zip(drawn.latents, at.tolist(), strict=True)
    ]
    circles.sort(key=lambda circle: circle["marked"])  # marked ones are drawn last, above the others
    radius = 5 if len(circles) < 600 else 3.5 if len(circles) < 3000 else 2.5
    values = {"circles": circles, "radius": radius, "page": page, "about": about}
    return render("drawing.html", width=WIDTH, height=HEIGHT, **values)
