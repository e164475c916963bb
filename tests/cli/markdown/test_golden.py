"""One answer with everything in it, as it looks at three widths. `render` writes the files anew."""

import pytest

from tests.cli.markdown.render import GOLDEN, LOOKS, golden_path, golden_rendering, pieces, render, shown


@pytest.mark.parametrize(("width", "is_colored"), LOOKS)
def test_the_answer_looks_as_it_did(width: int, is_colored: bool) -> None:
    assert golden_rendering(width, is_colored) == golden_path(width, is_colored).read_text(encoding="utf-8")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize(("width", "is_colored"), LOOKS)
def test_the_answer_looks_the_same_in_pieces(width: int, is_colored: bool, size: int) -> None:
    text = (GOLDEN / "answer.md").read_text(encoding="utf-8")
    output = render(pieces(text, size), width=width, color=is_colored)
    assert shown(output) == golden_path(width, is_colored).read_text(encoding="utf-8")


def test_there_is_a_file_for_each_look_and_no_other() -> None:
    files = {path.name for path in GOLDEN.iterdir()}
    assert files == {"answer.md", *(golden_path(*look).name for look in LOOKS)}
