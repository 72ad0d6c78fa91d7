"""A dictionary's map as a page: a circle per latent, its label on hover, search, and keys to walk it by."""

from collections.abc import Collection, Mapping
from pathlib import Path

from interp.features import DictionaryMap
from interp.show.frame import framed, saved
from interp.show.html import Html, escape

SCRIPT = (Path(__file__).parent / "map.js").read_text(encoding="utf-8")
WIDTH, HEIGHT, EDGE = 1000.0, 720.0, 16.0


def map_html(drawn: DictionaryMap, labels: Mapping[int, str], marked: Collection[int] = ()) -> Html:
    """The map alone, for a notebook; latents in `marked` are red.

    ```python
    map_html(map_dictionary(sae), {i: describe(found.record(i)) for i in range(len(found))})
    ```
    """
    return Html(_drawing(drawn, labels, marked, "") + f"<p>{escape(str(drawn))}</p>")


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

    Errors: `ValueError` for a name that does not end in `.html`.

    ```python
    map_page("map.html", map_dictionary(sae), labels, marked=[found.best.latent], page="latents.html")
    ```
    """
    red = " The red ones are those of the search." if marked else ""
    body = (
        '<p class="lead">Each circle is a latent, near those whose decoder directions point the same way (UMAP, cosine '
        f"distance). Distances between far apart circles mean nothing.{red}</p>"
        '<div class="find"><label for="search">Search</label>'
        '<input id="search" type="search" autocomplete="off"><output id="count" for="search"></output></div>'
        '<p class="keys"><kbd>/</kbd> search, <kbd>Tab</kbd> to the map and <kbd>←</kbd> <kbd>↑</kbd> <kbd>→</kbd> '
        "<kbd>↓</kbd> to walk it; point at a circle for its label, click to keep it.</p>"
        f"{_drawing(drawn, labels, marked, page)}"
        '<p id="chosen" aria-live="polite"></p><ul id="listed"></ul>'
        f"<footer><p>{escape(str(drawn))}</p></footer><script>{SCRIPT}</script>"
    )
    return saved(path, framed(title, body))


def _drawing(drawn: DictionaryMap, labels: Mapping[int, str], marked: Collection[int], page: str) -> str:
    low, high = drawn.xy.amin(0), drawn.xy.amax(0)
    span = (high - low).clamp(min=1e-9)
    scale = min((WIDTH - 2 * EDGE) / float(span[0]), (HEIGHT - 2 * EDGE) / float(span[1]))
    at = (drawn.xy - (low + high) / 2) * scale
    radius = 5 if len(drawn.latents) < 600 else 3.5 if len(drawn.latents) < 3000 else 2.5
    circles = []
    for latent, (x, y) in zip(drawn.latents, at.tolist(), strict=True):
        mark = ' class="marked"' if latent in marked else ""
        said = f"{latent}: {escape(labels.get(latent, 'no label'))}"
        where = f'cx="{x + WIDTH / 2:.1f}" cy="{HEIGHT / 2 - y:.1f}" r="{radius}"'
        circles.append((mark, f'<circle{mark} data-latent="{latent}" {where}><title>{said}</title></circle>'))
    return (
        f'<svg class="map" viewBox="0 0 {WIDTH:g} {HEIGHT:g}" tabindex="0" role="img" data-page="{escape(page)}" '
        f'aria-label="map of {len(circles)} latents">{"".join(one for _, one in sorted(circles, key=_mark))}</svg>'
    )


def _mark(circle: tuple[str, str]) -> str:
    return circle[0]  # marked ones are drawn last, above the others
