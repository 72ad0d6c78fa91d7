"""Build the site: `python docs/build_site.py` (or `make docs`) writes build/site, and fails at the first warning.

1. Pages: everything under docs/ is copied to build/pages, with README's picture.
2. Tutorials: each notebook that has been executed into build/tutorials becomes a page with its outputs and figures.
3. Reference: one page per package, of exactly the names it exports, from their docstrings.
4. Site: zensical turns the pages into HTML, strictly.
"""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build"
PAGES = BUILD / "pages"
PLOTLY = "application/vnd.plotly.v1+json"
TABLES = re.findall(r"^## `([\w.]+)`", (ROOT / "docs" / "api.md").read_text("utf-8"), re.M)
PACKAGES = tuple(name for name in TABLES if name != "interp")


def copy_pages() -> None:
    """Lay out the pages that are written by hand."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for path in PAGES.rglob("*.md"):  # a number and its per cent stay on one line
        path.write_text(re.sub(r"(?<=\d) %", "\u00a0%", path.read_text("utf-8")), encoding="utf-8")
    import plotly

    script = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    (PAGES / "assets").mkdir(exist_ok=True)
    shutil.copy(script, PAGES / "assets" / "plotly.min.js")


def with_figures(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with each Plotly figure as a `div` that the site's one copy of Plotly draws."""
    for number, cell in enumerate(notebook.cells):
        for place, output in enumerate(cell.get("outputs", [])):
            data = output.get("data", {})
            if "text/html" in data:  # links to what the notebook does not show
                data["text/html"] = re.sub(r'<a href="#[^"]*">(.*?)</a>', r"\1", "".join(data["text/html"]))
            if PLOTLY in data:
                name, figure = f"figure-{number}-{place}", data[PLOTLY]
                drawn = json.dumps([figure["data"], figure.get("layout", {})]).replace("</", "<\\/")
                data.clear()
                data["text/markdown"] = (
                    f'<div id="{name}" class="plotly-figure"></div>\n'
                    f"<script>window.addEventListener('load', () => {{ const f = {drawn};"
                    f" Plotly.newPlot('{name}', f[0], f[1], {{responsive: true}}) }})</script>"
                )
    return notebook


def write_tutorials() -> list[str]:
    """Write a page for each notebook, its outputs as they were when it was executed."""
    folder, exporter, titles = PAGES / "tutorials", MarkdownExporter(), []
    folder.mkdir(exist_ok=True)
    for path in sorted((ROOT / "tutorials").glob("*.ipynb")):
        executed = BUILD / "tutorials" / path.name
        if not executed.exists():
            raise SystemExit(f"{executed} is missing: `make tutorials` executes every notebook")
        text, resources = exporter.from_notebook_node(with_figures(nbformat.read(executed, as_version=4)))
        for name, data in resources["outputs"].items():
            (folder / f"{path.stem}-{name}").write_bytes(data)
            text = text.replace(f"({name})", f"({path.stem}-{name})")
        (folder / f"{path.stem}.md").write_text(text, encoding="utf-8")
        heading = re.search(r"^# (.+)$", text, flags=re.M)
        titles.append(f"- [{heading.group(1) if heading else path.stem}]({path.stem}.md)")
    (folder / "index.md").write_text("\n".join(["# Tutorials", "", *titles, ""]), encoding="utf-8")
    return titles


def write_reference() -> None:
    """Write a page per package: the names of its `__all__`, in that order, from their docstrings."""
    folder, rows = PAGES / "reference", []
    folder.mkdir(exist_ok=True)
    for package in PACKAGES:
        module = importlib.import_module(package)
        members = "".join(f"        - {name}\n" for name in module.__all__)
        page = f"# {package}\n\n::: {package}\n    options:\n      members:\n{members}"
        (folder / f"{package}.md").write_text(page, encoding="utf-8")
        first = (module.__doc__ or "").strip().splitlines()[0]
        rows.append(f"- [`{package}`]({package}.md): {first}")
    (folder / "index.md").write_text("\n".join(["# Reference", "", *rows, ""]), encoding="utf-8")


def check_navigation() -> None:
    """End with an error where a page is in no menu, or a menu names no page."""

    def list_pages(entry: object) -> set[str]:
        if isinstance(entry, str):
            return {entry}
        children = entry.values() if isinstance(entry, dict) else entry
        return set().union(*(list_pages(child) for child in children))  # type: ignore[attr-defined]

    menu = list_pages(tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"])
    pages = {path.relative_to(PAGES).as_posix() for path in PAGES.rglob("*.md")}
    if menu != pages:
        raise SystemExit(f"in no menu: {sorted(pages - menu)}; no page: {sorted(menu - pages)}")


def main() -> None:
    """Do the four steps."""
    copy_pages()
    write_tutorials()
    write_reference()
    check_navigation()
    command = [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean"]
    raise SystemExit(subprocess.run(command, cwd=ROOT, check=False, env=os.environ | {"NO_COLOR": "1"}).returncode)


if __name__ == "__main__":
    main()
