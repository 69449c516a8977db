"""Every example of the chart, rendered, for the tests that hold for all of them."""

import pytest

from rendering import EXAMPLES, render


@pytest.fixture(params=EXAMPLES, ids=[file.name.removesuffix("-values.yaml") for file in EXAMPLES])
def objects(request):
    return render("--values", request.param)
