"""Pictures, from Python and below what a magic put out."""

from __future__ import annotations

import subprocess
import sys

import plotly.graph_objects as go
import pytest
from bench import QUESTION
from IPython.core.interactiveshell import InteractiveShell
from shells import Published, failure, run

import cwm_jupyter as cwm
from cwm_jupyter.errors import ValidationError

pytestmark = pytest.mark.usefixtures("own_process", "fake_stack")


@pytest.fixture
def paper(kernel: InteractiveShell) -> InteractiveShell:
    """A notebook in which a session was frozen and thawed."""
    run(kernel, f"%%cwm -s paper\n{QUESTION}")
    run(kernel, "%freeze paper")
    run(kernel, "%thaw paper -o report --as again")
    return kernel


def title(figure: go.Figure) -> str:
    assert isinstance(figure, go.Figure)
    return str(figure.layout.title.text)


def test_all_that_the_api_returns_has_its_picture(paper: InteractiveShell) -> None:
    assert title(cwm.plot(cwm.session("paper"))) == "Context used by paper"
    assert title(cwm.plot(cwm.show(session="paper"))) == "Context used by paper"
    assert title(cwm.plot(cwm.window("paper"))) == "Tokens from cache, by turn"
    assert title(cwm.plot(cwm.show("paper"))) == "Tokens from cache, by turn"
    assert title(cwm.plot(cwm.show("paper").turns)) == "Tokens from cache, by turn"
    assert title(cwm.plot(cwm.windows())).startswith("Thaw against prefill")
    assert title(cwm.plot(cwm.tree("paper"))) == "Family of paper"
    assert title(cwm.plot(cwm.disk_usage())).startswith("On disk: ")
    assert title(cwm.plot(paper.user_ns["report"])).startswith("Thaw of paper: ")
    assert title(cwm.plot([cwm.statistics()])) == "Cache by tier"


def test_of_nothing_there_is_a_picture_too(kernel: InteractiveShell) -> None:
    assert title(cwm.plot(cwm.windows())) == "Thaw against prefill"
    assert title(cwm.plot(cwm.tree())) == "Family of windows"


@pytest.mark.parametrize("value", [7, "paper", None, [1, 2], {}])
def test_what_has_no_picture_is_told(value: object) -> None:
    with pytest.raises(ValidationError, match=r"There is no picture of") as caught:
        cwm.plot(value)
    assert "cwm.windows()" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("%cwm show paper --plot", "Tokens from cache"),
        ("%cwm show -s paper --plot", "Context used by paper"),
        ("%cwm tree paper --plot", "Family of paper"),
        ("%cwm du --plot", "On disk"),
        ("%cwm ls --plot", "Thaw against prefill"),
        ("%thaw paper --plot", "Thaw of paper"),
    ],
)
def test_a_magic_draws_below_what_it_says(paper: InteractiveShell, cell: str, says: str) -> None:
    outputs = run(paper, f"{cell} -o kept").outputs
    assert "text/html" in outputs[0].data
    assert says in str(outputs[-1].data)
    assert paper.user_ns["kept"] is not None


def test_nothing_is_drawn_in_the_background(paper: InteractiveShell) -> None:
    Published(paper)
    _, seen = failure(paper, "%thaw paper --plot --background")
    assert "not allowed with argument --plot" in seen


def test_plotly_is_imported_when_there_is_something_to_draw() -> None:
    code = "import sys, cwm_jupyter as cwm; cwm.plot; print('plotly' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
