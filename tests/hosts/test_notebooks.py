"""A real kernel runs cells: what it shows of results, and of progress."""

import pytest

pytest.importorskip("ipykernel")
nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")

CELLS = [
    "import numpy as np, scipy.sparse as sp, sparsehess as sh, time\n"
    "K = sp.diags([-np.ones(99), np.full(100, 2.0), -np.ones(99)], [-1, 0, 1]).tocsr()\n"
    "found = sh.eigs(K, 3)\n"
    "found",
    "sh.density(K)",
    "pattern = sh.Pattern.from_scipy(K)\npattern",
    "sh.color(pattern)",
    "with sh.Progress('colours evaluated') as progress:\n"
    "    for step in range(30):\n"
    "        time.sleep(0.1)\n"
    "        progress(step, 30)\n",
    "repr(sh.Progress('a')._line).split()[0]",
    "found.close(); found",
]


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    client = nbclient.NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": tmp_path_factory.mktemp("nb")}},
    )
    messages, original = [], client.process_message

    def kept(message, cell, index):
        messages.append((index, message["msg_type"], message["content"]))
        return original(message, cell, index)

    client.process_message = kept
    client.execute()
    return notebook.cells, messages


@pytest.mark.parametrize("number", [0, 1, 2, 3, 6])
def test_results_show_themselves(cells, number):
    (output,) = cells[0][number].outputs
    assert output.output_type == "execute_result" and "<svg" in output.data["text/html"]
    assert len(output.data["text/plain"]) <= 100


def test_progress_is_one_output_that_is_updated_and_cleared(cells):
    made, messages = cells
    (output,) = made[4].outputs
    assert output.output_type == "display_data" and output.data["text/plain"] == ""
    kinds = [kind for index, kind, _ in messages if index == 4]
    texts = [
        content["data"]["text/plain"] for index, kind, content in messages if index == 4 and "data" in content
    ]
    assert (
        kinds.count("display_data") == 1 and 1 <= kinds.count("update_display_data") < 8 and "stream" not in kinds
    )
    assert texts[0].startswith("colours evaluated: ") and texts[-1] == ""
    assert "NotebookLine" in made[5].outputs[0].data["text/plain"]
