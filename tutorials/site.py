"""What the documentation site adds to docs/: the tutorials with their outputs, and links into the code.

mkdocs calls the functions whose names begin with on_ (`hooks` in mkdocs.yml).
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter
from PIL import Image

HERE = Path(__file__).parent
BUILT = HERE.parent / "build" / "tutorials"
NOT_RUN = "*Built without outputs: `make docs` runs the tutorial first.*\n\n"


def page(source: Path) -> tuple[str, dict[str, bytes]]:
    """The tutorial as Markdown and its pictures by file name; without outputs where it was not run."""
    made = BUILT / f"{source.stem}.ipynb"
    fresh = made.exists() and made.stat().st_mtime > source.stat().st_mtime
    notebook = nbformat.read(made, as_version=4) if fresh else jupytext.read(source)
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, resources={"unique_key": source.stem, "output_files_dir": f"{source.stem}_files"}
    )
    text = re.sub(r"\]\((\d\d_\w+)\.py\)", r"](\1.md)", text)  # links between tutorials
    text = text.replace("](../docs/", "](../")  # and to the pages
    return text if fresh else NOT_RUN + text, resources["outputs"]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the tutorials, and an entry for each to the navigation, between overview and coursework."""
    chapters: list[Any] = next(part["Tutorials"] for part in config.nav if "Tutorials" in part)
    overview, *others = [part for part in chapters if "tutorials/0" not in str(part)]  # `mkdocs serve` comes here again
    chapters[:] = [overview]
    for source in sorted(HERE.glob("[0-9]*.py")):
        text, pictures = page(source)
        files.append(File.generated(config, f"tutorials/{source.stem}.md", content=text))
        for name, data in pictures.items():
            files.append(File.generated(config, f"tutorials/{name}", content=data))
        chapters.append({text.split("# ", 1)[1].splitlines()[0]: f"tutorials/{source.stem}.md"})
    chapters += others
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links from docs/ to files outside of it work in a checkout but not on the site: there a tutorial is its page, and
    of the others only their text stays.
    """
    folder = Path(page.file.src_uri).parent
    if folder.name in ("", "tutorials"):
        here = "" if folder.name else "tutorials/"
        markdown = re.sub(r"\]\((?:\.\./)+tutorials/(\d\d_\w+)\.py\)", rf"]({here}\1.md)", markdown)
    if folder.name:
        return markdown
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)[^)]*\)", r"\1", markdown)


def on_page_content(html: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Rows of pictures are marked for docs/screens.css; in the reference each argument begins a line, as in code."""

    def marked(tag: re.Match[str]) -> str:
        picture = files.get_file_from_path((Path(page.file.src_uri).parent / tag[1]).as_posix())
        assert picture is not None, tag[0]
        width, height = Image.open(io.BytesIO(picture.content_bytes)).size
        return tag[0].replace("<img", '<img class="wide"') if width > max(700, 1.5 * height) else tag[0]

    html = re.sub(r'<img [^>]*src="([^"]+)"[^>]*>', marked, html)
    if page.file.src_uri.startswith("reference/"):
        html = re.sub(r"\n(?=[a-z_]+: )", "<br>\n", html)
    return html
