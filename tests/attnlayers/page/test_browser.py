"""The page in a browser: values are those of the array, clicks and keys do what they say, nothing leaves the page."""

from typing import Any

import numpy as np
import pytest

from attnlayers.page import page, view

SOURCE = ["I", "am", "<b>a</b>", "日本語", "שלום", " ", "cat"]
TARGET = ["吾輩", "は", "</script>", "\n", "مرحبا"]


@pytest.fixture
def weights(softmaxed: Any) -> np.ndarray:
    shown: np.ndarray = softmaxed(2, 3, 5, 7)
    return shown


@pytest.fixture
def opened(browser: Any, weights: np.ndarray) -> Any:
    browser.open(view(weights, SOURCE, TARGET, title="<i>x</i>"))
    return browser


def values(row: np.ndarray) -> dict[int, float]:
    return {i: float(w) for i, w in enumerate(row)}


def test_every_value_is_that_of_the_array(opened: Any, weights: np.ndarray) -> None:
    for layer, head in np.ndindex(2, 3):
        opened.choose("layer", str(layer + 1))
        opened.choose("head", str(head + 1))
        own = weights[layer, head]
        np.testing.assert_allclose(opened.shares(), own / own.max(), atol=0.5 / 255 + 1e-6)
        for q in range(5):
            opened.hover(opened.token("queries", q))
            assert opened.table() == values(own[q])
        for k in range(7):
            opened.hover(opened.token("keys", k))
            assert opened.table() == values(own[:, k])


@pytest.mark.parametrize("seed", range(5))
def test_values_of_drawn_shapes(browser: Any, softmaxed: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 9, rng.integers(2, 5)))
    w = softmaxed(*shape, seed=seed)
    browser.open(view(w, [f"k{i}" for i in range(shape[-1])], [f"q{i}" for i in range(shape[-2])]))
    last = w.reshape(-1, *shape[-2:])[0]
    np.testing.assert_allclose(browser.shares(), last / last.max(), atol=0.5 / 255 + 1e-6)
    q = int(rng.integers(shape[-2]))
    browser.token("queries", q).click()
    assert browser.table() == values(last[q])
    lines = browser.run(
        "return [...document.querySelectorAll('#drawn line')].map(l => [+l.dataset.query, +l.dataset.key])"
    )
    assert sorted(lines) == [[q, k] for k in range(shape[-1])]


def test_means_of_heads_and_layers(opened: Any, weights: np.ndarray) -> None:
    opened.choose("head", "mean of 3")
    opened.hover(opened.token("queries", 1))
    own = weights[0].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose([opened.table()[k] for k in range(7)], own[1], rtol=1e-12)
    opened.choose("layer", "mean of 2")
    opened.hover(opened.token("keys", 3))
    own = weights.astype(np.float64).mean(axis=(0, 1))
    np.testing.assert_allclose([opened.table()[q] for q in range(5)], own[:, 3], rtol=1e-12)


def test_the_table_reads_from_the_largest_down(opened: Any, weights: np.ndarray) -> None:
    opened.hover(opened.token("queries", 0))
    order = np.argsort(-weights[0, 0, 0])
    assert list(opened.table()) == order.tolist()
    shown = [row.find_elements("css selector", "td")[2].text for row in opened.all("#rows tr")]
    assert shown == [f"{w:.4f}" for w in weights[0, 0, 0, order]]
    assert opened.text("#caption") == "“吾輩” (1) attends to"


def test_a_click_keeps_a_token_and_another_lets_it_go(opened: Any, weights: np.ndarray) -> None:
    token = opened.token("queries", 2)
    token.click()
    assert token.get_attribute("aria-pressed") == "true"
    opened.hover(opened.token("keys", 4))
    assert opened.table() == values(weights[0, 0, :, 4])
    opened.hover(opened.find("#title"))
    assert opened.table() == values(weights[0, 0, 2])
    assert len(opened.all("#drawn line")) == 7
    token.click()
    opened.hover(opened.find("#title"))
    opened.run("document.activeElement.blur()")
    assert token.get_attribute("aria-pressed") == "false"
    assert not opened.find("#numbers").is_displayed()
    assert len(opened.all("#drawn line")) == 35


def test_a_cell_says_its_weight(opened: Any, weights: np.ndarray) -> None:
    canvas = opened.find("#canvas")
    width, height = canvas.size["width"], canvas.size["height"]
    for q, k in ((0, 0), (2, 3), (4, 6)):
        opened.hover(canvas, (k + 0.5) / 7 * width - width / 2, (q + 0.5) / 5 * height - height / 2)
        assert opened.text("#status").endswith(f"({k + 1}): {weights[0, 0, q, k]:.4f}")
    canvas.click()  # in the middle
    opened.hover(opened.find("#title"))
    assert opened.text("#status").endswith(f"“日本語” (4): {weights[0, 0, 2, 3]:.4f}")


def test_keys_alone_reach_everything(opened: Any, weights: np.ndarray) -> None:
    from selenium.webdriver import Keys

    opened.run("document.getElementById('head').focus()")
    opened.press(Keys.TAB)
    opened.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert opened.table() == values(weights[0, 0, 2])
    assert opened.text("#status").startswith("“</script>” (3) attends to: ")
    opened.press(Keys.ARROW_RIGHT)
    assert opened.table() == values(weights[0, 0, :, 2])
    opened.press(Keys.END)
    assert opened.table() == values(weights[0, 0, :, 6])
    opened.press(Keys.ENTER)
    assert opened.token("keys", 6).get_attribute("aria-pressed") == "true"
    opened.press(Keys.ESCAPE)
    assert opened.token("keys", 6).get_attribute("aria-pressed") == "false"
    opened.press("h")
    assert opened.find("#head").get_attribute("value") == "1"
    opened.press("H", "H")  # as with the shift key
    opened.press("l")
    assert opened.find("#layer").get_attribute("value") == "1"


def test_keys_on_the_heat_map(opened: Any, weights: np.ndarray) -> None:
    from selenium.webdriver import Keys

    opened.run("document.getElementById('map').focus()")
    opened.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert opened.text("#status") == f"“は” (2) attends to “am” (2): {weights[0, 0, 1, 1]:.4f}"
    opened.press(*[Keys.ARROW_LEFT] * 3, Keys.ENTER)
    opened.run("document.activeElement.blur()")
    assert opened.text("#status") == f"“は” (2) attends to “I” (1): {weights[0, 0, 1, 0]:.4f}"


def test_what_a_screen_reader_is_told(opened: Any) -> None:
    token = opened.token("keys", 5)
    assert token.accessible_name == "space, 6 of 7"
    assert token.aria_role == "button"
    assert opened.find("#keys").aria_role == "list"
    assert opened.find("#keys").accessible_name == "source is attended to"
    assert opened.find("#status").get_attribute("aria-live") == "polite"
    assert opened.find("#layer").accessible_name == "Layer"
    assert opened.find("#map").accessible_name == "Heat map"


def test_text_is_shown_as_text(opened: Any) -> None:
    shown = [button.text for button in opened.all(".tokens button")]
    assert shown == ["吾輩", "は", "</script>", "⏎", "مرحبا", "I", "am", "<b>a</b>", "日本語", "שלום", "␣", "cat"]
    assert opened.driver.title == "<i>x</i>"
    assert opened.all("h1 i, .tokens b") == []
    direction = "return getComputedStyle(arguments[0]).direction"
    assert opened.run(direction, opened.token("keys", 4)) == "rtl"
    assert opened.run(direction, opened.token("keys", 3)) == "ltr"
    assert opened.find("#keys").get_attribute("lang") == "ja"


def test_nothing_leaves_the_page(opened: Any) -> None:
    opened.token("queries", 0).click()
    opened.choose("head", "2")
    assert opened.requests() == [(opened.folder / "page.html").as_uri()]
    opened.run("new Image().src = 'https://example.org/'; fetch('https://example.org/').catch(() => 0)")
    blocked = " ".join(opened.errors())
    assert blocked.count("Content Security Policy") >= 2


def test_several_attentions_and_their_tokens(browser: Any, softmaxed: Any) -> None:
    w, own = softmaxed(3, 4), softmaxed(2, 2, 4, 4)
    browser.open(view({"cross": (w, "abcd", "xyz"), "self": (own, "abcd")}))
    assert not browser.find("#layer").is_displayed()
    browser.choose("attention", "self")
    browser.choose("layer", "2")
    browser.hover(browser.token("queries", 3))
    assert browser.table() == values(own[1, 0, 3])


def test_light_dark_and_print(opened: Any, weights: np.ndarray) -> None:
    largest = int(weights[0, 0].argmax())
    cells = """const c = document.getElementById('canvas');
        const all = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return [...all.slice(4 * arguments[0], 4 * arguments[0] + 3)]"""
    colours = {}
    for name, media, scheme in (("light", "", "light"), ("dark", "", "dark"), ("print", "print", "dark")):
        opened.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]},
        )
        style = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
        opened.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        colours[name] = opened.run(style), opened.run(cells, largest)
    opened.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert colours["light"][0] == ["rgb(255, 255, 255)", "rgb(27, 31, 36)"]
    assert colours["dark"][0] == ["rgb(20, 23, 27)", "rgb(230, 233, 237)"]
    assert colours["print"][0] == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"]
    assert colours["light"][1] == colours["print"][1] == [29, 78, 216]
    assert colours["dark"][1] == [125, 176, 255]


def test_thinned_weights_say_so_and_are_right(browser: Any, softmaxed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    w = softmaxed(1, 2, 40, 50)
    monkeypatch.setattr(page, "LARGEST", len(page._template("").encode()) + 12_000)
    shown = view(w, [f"k{i}" for i in range(50)], [f"q{i}" for i in range(40)])
    browser.open(shown)
    words = browser.text("#notes").split()
    kept = int(words[-4])
    assert browser.text("#notes").startswith("Thinned to fit the page: of each token's 50 weights only the ")
    browser.choose("head", "2")
    browser.token("queries", 7).click()
    largest = np.argsort(-w[0, 1, 7])[:kept]
    assert browser.table() == {int(k): float(w[0, 1, 7, k]) for k in largest}
    assert "mean" not in browser.text("#head")


def test_ten_thousand_tokens_open(browser: Any) -> None:
    w = np.eye(10_000, dtype=np.float32)
    browser.open(view(w, [f"t{i}" for i in range(10_000)]))
    assert browser.run("return document.querySelectorAll('#keys li').length") == 10_000
    shares = browser.shares()
    assert shares.shape == (600, 600)
    np.testing.assert_array_equal(np.diagonal(shares), 1)
    browser.token("queries", 5).click()
    assert browser.table() == {5: 1.0}


def test_in_the_frame_of_a_notebook(browser: Any, softmaxed: Any) -> None:
    w = softmaxed(3, 3)
    path = browser.folder / "notebook.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{view(w, 'abc')._repr_html_()}", encoding="utf-8")
    browser.driver.get(path.as_uri())
    browser.driver.switch_to.frame(browser.find("iframe"))
    browser.token("queries", 1).click()
    assert browser.table() == values(w[1])
    browser.driver.switch_to.default_content()
