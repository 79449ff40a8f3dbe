"""A page of every small model: whatever its graph, it can be drawn."""

import pytest
from small_models import CASES, hardened

import keras_l0


@pytest.mark.thorough
@pytest.mark.parametrize("inputs", ["keep", "gather"])
@pytest.mark.parametrize("name", CASES)
def test_a_page_of_every_model(name, inputs, tmp_path):
    model = hardened(name)
    page = keras_l0.html_report(model, tmp_path / "page.html", inputs=inputs)
    kept = keras_l0.profile(model, inputs).deployed
    assert (page.rows[-1].params, page.rows[-1].macs) == kept
    text = (tmp_path / "page.html").read_text()
    assert text.count("<g ") == text.count('class="box"') > 0
