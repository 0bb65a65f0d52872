"""The page where digits are drawn: its modules, in Node."""

import base64
import io
import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from lab.samples.digits import picture
from support.strokes import HANDS, Points, drawn

WEB = Path(__file__).parents[2] / "services/shopper/shopper/web"
SIDE = 8
INK = 312
"""Pixels of 1,024, as in the originals."""

if find_spec("sklearn") is None:
    pytest.skip("no scikit-learn here", allow_module_level=True)
if shutil.which("node") is None:
    pytest.skip("no node here: apt-get install nodejs", allow_module_level=True)


def load_digits() -> Any:
    from sklearn import datasets  # type: ignore[import-untyped] # noqa: PLC0415 - seconds

    return datasets.load_digits()


def node(script: str, given: Any = None) -> Any:
    """Run a script that may import the page's modules and use `given`; return what it passes to `tell`."""
    head = f'import {{ readFileSync }} from "node:fs"; const web = "{WEB.as_uri()}/";'
    head += "const given = JSON.parse(readFileSync(0)); const tell = (x) => console.log(JSON.stringify(x));"
    command = ["node", "--input-type=module", "--eval", f"{head}\n{script}"]
    run = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def counted(drawings: list[list[Points]]) -> NDArray[np.int64]:
    """Return the ink of drawings, [N, 8, 8]."""
    script = """
        const { blocks } = await import(`${web}digit.js`);
        tell(given.map((strokes) => blocks(strokes.map((stroke) => stroke.map(([x, y]) => ({ x, y }))))));
    """
    given = [[stroke.tolist() for stroke in strokes] for strokes in drawings]
    return np.array(node(script, given)).reshape(-1, SIDE, SIDE)


def test_the_picture_that_is_sent_is_the_data_sets_own_to_the_pixel() -> None:
    some = np.concatenate([load_digits().images[::60], np.random.default_rng(0).integers(0, 17, (20, 8, 8))])
    script = """
        const { picture, png } = await import(`${web}digit-png.js`);
        tell(given.map((ink) => Buffer.from(png(picture(ink))).toString("base64")));
    """
    for ink, encoded in zip(some, node(script, some.reshape(-1, 64).tolist()), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert (image.format, image.mode) == ("PNG", "L")
            np.testing.assert_array_equal(np.asarray(image), np.asarray(picture(ink)))


def test_what_hands_draw_lies_among_the_originals() -> None:
    originals = load_digits()
    hands = [(digit, hand, seed) for digit in HANDS for hand in range(len(HANDS[digit])) for seed in range(6)]
    ink = counted([drawn(*one) for one in hands])
    distances = ((ink.reshape(-1, 1, 64) - originals.images.reshape(1, -1, 64)) ** 2).sum(axis=2)
    nearest = originals.target[distances.argmin(axis=1)]
    assert (nearest == [int(digit) for digit, _, _ in hands]).mean() > 0.9
    assert np.abs(ink.sum(axis=(1, 2)) - INK).max() < INK / 5
    # Every one is as high as the sheet, as every original is.
    assert (ink[:, [0, -1]].sum(axis=2) > 0).all()


def test_size_place_and_slant_of_the_hand_make_no_difference() -> None:
    upright = [np.array([[x, y] for x, y in ((0.3, 0.1), (0.7, 0.1), (0.45, 0.9))])]
    smaller = [stroke * 0.3 + 0.4 for stroke in upright]
    dense = [
        np.concatenate([np.linspace(a, b, 40) for a, b in zip(upright[0], upright[0][1:], strict=False)])
    ]
    first, *others = counted([upright, smaller, dense])
    for other in others:
        assert np.abs(other - first).max() <= 1
    straight = [np.array([[0.5, 0.1], [0.5, 0.9]])]
    slanted = [np.array([[0.65, 0.1], [0.35, 0.9]])]
    one, other = counted([straight, slanted])
    assert abs(int(one[:, 3:5].sum()) - int(other[:, 3:5].sum())) < INK / 5
    assert other[:, [0, 1, 6, 7]].sum() < INK / 10


def test_an_empty_sheet_has_no_ink_and_a_dot_a_dash_or_a_long_scribble_some() -> None:
    dot, dash = np.array([[0.5, 0.5]]), np.array([[0.1, 0.5], [0.9, 0.5]])
    scribble = np.random.default_rng(0).uniform(0, 1, (20_000, 2))
    nothing, *some = counted([[], [dot], [dash], [scribble]])
    assert nothing.sum() == 0
    for ink in some:
        assert ink.sum() > 0
        assert ink.max() <= 16


def test_one_request_is_under_way_at_most_and_the_last_drawing_wins() -> None:
    script = """
        const { latest } = await import(`${web}latest.js`);
        const [asked, shown, ends] = [[], [], []];
        let [underWay, most] = [0, 0];
        const ask = (value) => new Promise((resolve, reject) => {
          asked.push(value);
          most = Math.max(most, underWay += 1);
          ends.push((error) => { underWay -= 1; error ? reject(error) : resolve(`answer ${value}`); });
        });
        const want = latest(ask, (answer, error) => shown.push(answer ?? error.message), 1);
        const pause = (ms) => new Promise((over) => setTimeout(over, ms));
        const until = async (holds) => { while (!holds()) await pause(1); };
        want("a"); want("b");
        await until(() => asked.length === 1);
        want("c"); want("d");
        await pause(20);
        ends[0]();
        await until(() => asked.length === 2);
        ends[1]();
        await until(() => shown.length === 1);
        want("e");
        await until(() => asked.length === 3);
        ends[2](new Error("away"));
        await until(() => shown.length === 2);
        want("f");
        await until(() => asked.length === 4);
        want(null);
        ends[3]();
        await pause(20);
        tell({ asked, shown, most });
    """
    assert node(script, None) == {
        "asked": ["b", "d", "e", "f"],
        "shown": ["answer d", "away"],
        "most": 1,
    }
