"""The web page: what it does with files, what it refuses, and the page itself in a browser."""

import os
import re
import socket
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import photo
from PIL import Image
from screenshot import browser, open_page, served, upscale

import drct
from drct.commands.serve import main as serve
from drct.errors import DRCTError
from drct.images.pictures import Picture, read_picture
from drct.web import server
from drct.web import service as web_service
from drct.web.service import Service, preview


@pytest.fixture
def service(workplace):
    return Service(workplace, max_megapixels=0.001, device="cpu", precision="fp32")


def test_a_file_is_upscaled_as_by_the_upscaler_and_shown_beside_its_bicubic_enlargement(service, weights):
    Image.fromarray(photo(20, 24)).save("photo.jpg")
    shares: list[float] = []
    result = service.upscale(Path("photo.jpg"), str(weights), progress=shares.append)
    expected = drct.load(weights, "cpu", "fp32").upscale("photo.jpg")
    assert result.file.name == "photo_x2.png"
    assert np.array_equal(np.asarray(Image.open(result.file)), np.asarray(expected))
    bicubic = Image.open("photo.jpg").resize((48, 40), Image.Resampling.BICUBIC)
    for path, image in ((result.before, bicubic), (result.after, expected)):
        assert np.abs(np.asarray(Image.open(path), int) - np.asarray(image, int)).mean() < 5  # JPEG
    assert result.summary.startswith("24 x 20 to 48 x 40 pixels in ")
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert len(shares) > 10


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_depth_and_alpha_are_kept(service, weights, channels, dtype):
    pixels = np.dstack([photo(9, 11), photo(9, 11, 1)])[..., :channels].astype(dtype)
    cv2.imwrite("deep.png", pixels * (257 if dtype == np.uint16 else 1))
    result = read_picture(service.upscale(Path("deep.png"), str(weights)).file).pixels
    assert result.shape == (18, 22, channels)
    assert result.dtype == dtype
    assert np.array_equal(result, drct.load(weights, "cpu", "fp32").upscale_picture(read_picture("deep.png")).pixels)


def test_a_texture_is_upscaled_as_one(service, weights):
    Image.fromarray(photo(12, 20)).save("bricks.png")
    upscaler = drct.load(weights, "cpu", "fp32")
    results = [np.asarray(upscaler.upscale("bricks.png", wrap=wrap)) for wrap in (False, True)]
    for wrap, expected in enumerate(results):
        result = service.upscale(Path("bricks.png"), str(weights), wrap=bool(wrap))
        assert np.array_equal(np.asarray(Image.open(result.file)), expected)
    assert not np.array_equal(*results)


def test_floats_are_written_as_tiff(service, weights, monkeypatch):
    Image.new("L", (6, 5)).save("gray.png")
    floats = Picture(np.random.default_rng(0).random((5, 6, 1), np.float32), "TIFF")
    monkeypatch.setattr(web_service, "read_picture", lambda path: floats)
    result = service.upscale(Path("gray.png"), str(weights)).file
    assert result.name == "gray_x2.tif"
    assert read_picture(result).pixels.dtype == np.float32


def test_a_large_result_is_reduced_to_look_at_only(service, weights, monkeypatch):
    monkeypatch.setattr(web_service, "PREVIEW_SIDE", 30)
    Image.fromarray(photo(20, 24)).save("photo.png")
    result = service.upscale(Path("photo.png"), str(weights))
    assert Image.open(result.before).size == Image.open(result.after).size == (30, 25)
    assert Image.open(result.file).size == (48, 40)
    assert "shown at 30 x 25" in result.summary


def test_what_is_transparent_is_shown_white():
    pixels = np.full((4, 4, 4), 60, np.uint8)
    pixels[:, :2, 3], pixels[:, 2:, 3] = 0, 255
    for channels, white, seen in ((slice(None), (255,) * 3, (60,) * 3), (slice(2, None), 255, 60)):
        image = preview(Picture(pixels[..., channels]), (4, 4))
        assert (image.getpixel((0, 0)), image.getpixel((3, 0))) == (white, seen)


def test_a_file_that_is_too_large_is_refused_by_its_header(service, weights, monkeypatch):
    Image.new("RGB", (40, 25)).save("allowed.png")
    service.upscale(Path("allowed.png"), str(weights))
    monkeypatch.setattr(web_service, "read_picture", lambda path: pytest.fail("was decoded"))
    Image.new("RGB", (41, 25)).save("larger.png")
    with pytest.raises(DRCTError, match=r"^larger.png has 41 x 25 pixels, 0.00103 megapixels: at most 0.001 are"):
        service.upscale(Path("larger.png"), str(weights))


def test_a_file_whose_header_does_not_tell_its_size_is_refused_when_it_is_read(service, monkeypatch):
    Path("odd.tif").write_bytes(b"what Pillow does not know")
    monkeypatch.setattr(web_service, "read_picture", lambda path: Picture(np.zeros((30, 40, 3), np.float32), "TIFF"))
    with pytest.raises(DRCTError, match=r"^odd.tif has 40 x 30 pixels"):
        service.upscale(Path("odd.tif"), "unused")


def test_messages_have_the_name_of_a_file_but_not_its_folder(service, workplace):
    Path("broken.png").write_text("no image")
    with pytest.raises(DRCTError, match="broken.png") as caught:
        service.upscale(workplace / "broken.png", "unused")
    assert str(workplace) not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_are_kept_but_not_more_than_a_few(workplace, monkeypatch):
    loaded: list[str] = []
    load = web_service.read_network
    monkeypatch.setattr(web_service, "read_network", lambda name, network: loaded.append(name) or load())
    service = Service(workplace, 1, "cpu")
    for name in ("a", "b", "a", "c", "a", "b"):
        service.upscaler(name)
    assert loaded == ["a", "b", "c", "b"]
    assert service.upscaler("b").network is service.upscaler("b", self_ensemble=True).network


def test_weights_are_chosen_by_the_image_and_named(service, workplace):
    Image.fromarray(photo(9, 14)).save("photo.jpg", quality=60)
    Image.fromarray(photo(9, 14)).save("photo.png")
    for name, weights in (("photo.jpg", "Real-DRCT-XS_SRx4"), ("photo.png", "DRCT-XS_SRx4")):
        result = service.upscale(Path(name), "auto")
        assert f"automatic choice: {weights}" in result.summary
        assert "automatic" not in service.upscale(Path(name), weights).summary
        expected = drct.load(weights, "cpu", "fp32").upscale(name)
        assert np.array_equal(np.asarray(Image.open(result.file)), np.asarray(expected))


def test_the_page_offers_a_choice_only_where_there_is_one(monkeypatch):
    monkeypatch.setattr(server, "available", lambda: ["DRCT-XS_SRx4", "Real-DRCT-XS_SRx4", "mine"])
    names = ["auto", "Real-DRCT-XS_SRx4", "DRCT-XS_SRx4", "mine"]
    assert [name for _, name in server._choices([])] == names
    assert [name for _, name in server._choices(["given.pth"])] == ["given.pth", *names]
    monkeypatch.setattr(server, "available", lambda: ["DRCT-XS_SRx4", "mine"])
    assert [name for _, name in server._choices([])] == ["DRCT-XS_SRx4", "mine"]


def test_images_are_computed_one_at_a_time(service, weights):
    Image.fromarray(photo(8, 8)).save("photo.png")
    computing: list[int] = []

    def run(user: int) -> None:
        def progress(share: float) -> None:
            computing.append(user)
            time.sleep(0.005)

        service.upscale(Path("photo.png"), str(weights), progress=progress)

    users = [threading.Thread(target=run, args=(user,)) for user in range(3)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    changes = sum(a != b for a, b in zip(computing, computing[1:], strict=False))
    assert len(set(computing)) == 3
    assert changes == 2


def test_what_is_computed_ends_when_the_service_is_stopped(service, weights):
    Image.fromarray(photo(16, 16)).save("photo.png")
    stopping = threading.Thread(target=service.stop)

    def progress(share: float) -> None:
        assert share < 0.5
        if share == 0:
            stopping.start()
        time.sleep(0.05)

    with pytest.raises(DRCTError, match="stopped"):
        service.upscale(Path("photo.png"), str(weights), progress=progress)
    stopping.join(timeout=10)
    assert not stopping.is_alive()


# ------------------------------------------------------------------------------------------------------------ command


@pytest.fixture
def gradio(monkeypatch):
    """Gradio is there, as far as the command can tell."""
    monkeypatch.setattr(server, "find_spec", lambda name: True)


def test_a_port_that_is_taken_is_told_in_one_line(gradio, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert serve(["--port", str(port)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: cannot listen on 127.0.0.1:{port}: ")
    assert message.count("\n") == 1


def test_without_gradio_one_line_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    assert serve([]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install gradio")


@pytest.mark.parametrize(("host", "warns"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_a_warning_is_given_where_others_can_reach_the_page(gradio, capsys, monkeypatch, host, warns):
    monkeypatch.setattr(server, "_run_page", lambda *arguments: None)
    monkeypatch.setattr(server.signal, "signal", lambda *handler: None)
    assert serve(["--host", host, "--port", "0"]) == 0
    assert ("warning" in capsys.readouterr().err) == warns


def test_weights_that_are_not_there_are_told_at_the_start(gradio, workplace, capsys, monkeypatch):
    monkeypatch.setattr(server.signal, "signal", lambda *handler: None)
    monkeypatch.setattr(server.os, "environ", dict(os.environ))
    monkeypatch.setattr(server.tempfile, "tempdir", str(workplace))
    assert serve(["--port", "0", "--weights", "DRCT-XS_SRx9"]) == 2
    assert capsys.readouterr().err.startswith("error: no weights DRCT-XS_SRx9 (did you mean 'DRCT-XS_SRx4'?)")
    assert not list(workplace.iterdir())


# --------------------------------------------------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def temporary(tmp_path_factory):
    """The server's working folder, and in it `tmp`, where it puts temporary files."""
    folder = tmp_path_factory.mktemp("web")
    (folder / "tmp").mkdir()
    return folder


@pytest.fixture(scope="module")
def url(temporary):
    """Address of a page that takes up to 50 x 50 pixels. At its end nothing is left behind."""
    pytest.importorskip("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary / "tmp"))
        with served("--max-megapixels", "0.0025", "--device", "cpu", "--precision", "fp32", cwd=temporary) as url:
            yield url
    assert list(temporary.rglob("*")) == [temporary / "tmp"]


@pytest.fixture(scope="module")
def window():
    with browser() as window:
        yield window


@pytest.fixture
def page(window, url):
    """The page in a browser. Whatever it asks for, it asks its server for."""
    page, asked = open_page(window, url)
    yield page
    page.close()
    assert len(asked) > 10
    assert [address for address in asked if not address.startswith((url, "data:", "blob:"))] == []


def test_an_image_is_uploaded_compared_and_downloaded_in_a_browser(page, tmp_path):
    pixels = np.dstack([photo(20, 24), photo(20, 24, 1)[..., 0]]).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "photo.png"), pixels)
    assert page.get_by_role("button", name="Download").is_disabled()
    upscale(page, tmp_path / "photo.png")
    page.get_by_text("24 x 20 to 96 x 80 pixels in").wait_for()

    before, after = page.get_by_test_id("imageslider-image").all()
    for image, name in ((before, "before.jpg"), (after, "after.jpg")):
        assert image.is_visible()
        assert image.get_attribute("src").endswith(name)
        size = image.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
        assert size == [96, 80]
    handle = page.get_by_test_id("slider").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 100, y, steps=5)
    page.mouse.up()
    left = re.search(r"inset\(.* ([\d.]+)%\)", after.evaluate("image => getComputedStyle(image).clipPath"))
    assert 10 < float(left[1]) < 45  # of the image after; it was 50

    with page.expect_download() as download:
        page.get_by_role("button", name="Download photo_x4.png").click()
    assert download.value.suggested_filename == "photo_x4.png"
    result = read_picture(download.value.path()).pixels
    expected = drct.load(device="cpu", precision="fp32").upscale_picture(read_picture(tmp_path / "photo.png")).pixels
    assert result.dtype == np.uint16
    difference = np.abs(result.astype(int) - expected)
    assert difference.max() <= 2  # of 65535: it is computed with other threads


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "choose an image first"),
        ("broken.png", b"no image", "cannot read image broken.png: "),
        (
            "large.png",
            Image.new("RGB", (51, 50)),
            "large.png has 51 x 50 pixels, 0.00255 megapixels: at most 0.0025 are",
        ),
        ("heavy.png", bytes(2_000_000), "exceed the maximum allowed size"),
        ("text.txt", b"no image", "Invalid file type: text.txt"),
    ],
)
def test_what_is_refused_is_told_in_the_browser(page, tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, Image.Image):
        content.save(path)
    elif content:
        path.write_bytes(content)
    if content and name in ("broken.png", "large.png"):
        upscale(page, path)
    elif content:
        page.locator("input[type=file]").first.set_input_files(path)
    else:
        page.get_by_role("button", name="Upscale").click()
    page.get_by_test_id("toast-body").get_by_text(message).wait_for()


def test_the_examples_are_offered_in_the_browser(page):
    page.locator(".gallery img, .gallery-item img").first.click()
    page.locator(".image-frame img").wait_for(state="attached")
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Upscale").click()
    page.get_by_test_id("toast-body").get_by_text("astronaut.png has 126 x 126 pixels").wait_for()


def test_no_other_file_of_the_machine_is_served_or_upscaled(url, tmp_path):
    httpx = pytest.importorskip("httpx")
    outside = str(tmp_path / "private.png")
    Image.new("L", (8, 8)).save(outside)
    with httpx.Client(base_url=f"{url}gradio_api", trust_env=False, timeout=60) as client:
        assert client.get(f"/file={outside}").status_code == 403
        for more in ({}, {"meta": {"_type": "gradio.FileData"}}):
            call = {"data": [{"path": outside, **more}, "DRCT-XS_SRx4", False, False, "2 times"]}
            event = client.post("/call/upscale", json=call).json()["event_id"]
            answer = client.get(f"/call/upscale/{event}").text
            assert "event: error" in answer
            assert "event: complete" not in answer


def test_users_wait_their_turn_and_no_more_than_a_few(workplace, monkeypatch):
    pytest.importorskip("gradio")
    httpx = pytest.importorskip("httpx")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(workplace))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    from drct.web import page as web_page

    going_on, entered = threading.Event(), threading.Semaphore(0)

    factors = []

    class Slow(Service):
        def upscale(self, path, *more):
            factors.append(more[-1])
            entered.release()
            assert going_on.wait(60)
            raise DRCTError(f"so much for {path.name}")

    monkeypatch.setattr(web_page, "QUEUE", 1)
    page = web_page.build_page(Slow(workplace, 1), [("any", "weights")], [])
    Image.new("L", (8, 8)).save("photo.png")
    call = {"data": [{"path": str(workplace / "photo.png")}, "weights", False, False, "2 times"]}
    _, url, _ = page.launch(quiet=True, prevent_thread_lock=True, ssr_mode=False)
    try:
        with httpx.Client(base_url=f"{url}gradio_api", trust_env=False, timeout=60) as client:
            first = client.post("/call/upscale", json=call)
            assert entered.acquire(timeout=60)
            second = client.post("/call/upscale", json=call)
            third = client.post("/call/upscale", json=call)
            assert (first.status_code, second.status_code, third.status_code) == (200, 200, 503)
            assert not entered.acquire(timeout=0.5)  # the second waits for the first
            going_on.set()
            for response in (first, second):
                answer = client.get(f"/call/upscale/{response.json()['event_id']}").text
                assert "so much for photo.png" in answer
            assert factors == [2, 2]
            other = {"data": [*call["data"][:-1], "9 times"]}
            event = client.post("/call/upscale", json=other).json()["event_id"]
            assert "event: error" in client.get(f"/call/upscale/{event}").text
            assert factors == [2, 2]
    finally:
        going_on.set()
        page.close(verbose=False)
