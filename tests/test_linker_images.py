"""`load_image` of linker_atom's services: the same pictures, and only from allowed places."""

import asyncio
import inspect
import io
import json
from base64 import b64encode, encodebytes
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
from origins import Origin, origin, whole
from PIL import Image

from atomserve.compat.linker_atom import sources
from atomserve.compat.linker_atom.shim.linker_atom.lib import load_image as images
from atomserve.compat.linker_atom.shim.linker_atom.lib.exception import VqlError
from atomserve.compat.linker_atom.shim.linker_atom.lib.load_image import load_image
from atomserve.compat.linker_atom.shim.linker_atom.lib.share_memory import MmapManager
from atomserve.media.sources import Sources
from atomserve.settings import MediaSettings


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    settings = MediaSettings(
        urls=True, allow_networks=("127.0.0.0/8",), roots=(str(tmp_path),), mmap=True
    )
    sources.use(Sources(settings))
    yield tmp_path
    sources.use(Sources())


@pytest.fixture
def server() -> Iterator[Origin]:
    with origin() as found:
        yield found


def photograph(seed: int = 1, mode: str = "RGB") -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((93, 61), Image.Resampling.BICUBIC).convert(mode)


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def by_opencv(data: bytes) -> np.ndarray:
    cv2 = pytest.importorskip("cv2")
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


REFERENCES = pytest.mark.parametrize("reference", [by_pillow, by_opencv])


def everywhere(data: bytes, root: Path, server: Origin) -> list[np.ndarray]:
    """Load the same picture in each way that takes a file's bytes."""
    (root / "picture").write_bytes(data)
    server.routes["/picture"] = whole(data)
    return [
        *load_image("local", [str(root / "picture")]),
        *load_image("url", [server.url("/picture")]),
        *load_image("base64", [b64encode(data).decode()]),
    ]


@REFERENCES
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1"])
def test_a_png_equals_the_reference_pixel_for_pixel(
    mode: str, reference: Any, root: Path, server: Origin
) -> None:
    data = saved(photograph(mode=mode), "PNG")
    for found in everywhere(data, root, server):
        assert (found.dtype, found.shape) == (np.uint8, (61, 93, 3))
        np.testing.assert_array_equal(found, reference(data))


@REFERENCES
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 10}, {"mode": "L"}])
def test_a_jpeg_is_within_two_levels_of_the_reference(
    options: dict[str, Any], reference: Any, root: Path, server: Origin
) -> None:
    data = saved(photograph(mode=options.pop("mode", "RGB")), "JPEG", **options)
    for found in everywhere(data, root, server):
        assert np.abs(found.astype(int) - reference(data).astype(int)).max() <= 2


def test_a_turned_jpeg_is_upright_as_an_array_and_as_it_was_as_a_picture(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    text = b64encode(saved(photograph(), "JPEG", exif=exif)).decode()
    (array,) = images.load_np_image("base64", [text])
    (picture,) = images.load_pil_image("base64", [text])
    assert array.shape == (93, 61, 3)
    assert picture.size == (93, 61)
    assert picture.mode == "RGB"


def test_services_may_draw_on_what_they_loaded(root: Path) -> None:
    for kind in ("PNG", "JPEG"):
        data = saved(photograph(), kind)
        (array,) = load_image("base64", [encodebytes(data).decode()])
        array[0, 0] = 7
        assert (array[0, 0] == 7).all()


def raw(root: Path, name: str = "raw") -> tuple[dict[str, Any], np.ndarray]:
    pixels = np.random.default_rng(2).integers(0, 255, (5, 4, 3), np.uint8)
    (root / name).write_bytes(b"skip" + pixels.tobytes())
    part = {"path": str(root / name), "position": 4, "size": 60, "height": 5, "width": 4}
    return part, pixels


def test_raw_pixels_are_turned_into_rgb(root: Path) -> None:
    part, pixels = raw(root)
    as_text = {name: str(value) for name, value in part.items()}
    for item in (part, json.dumps(part), as_text):
        (array,) = load_image("mmap", [item])
        np.testing.assert_array_equal(array, pixels[:, :, ::-1])
        (picture,) = images.load_pil_image("mmap", [item])
        np.testing.assert_array_equal(np.asarray(picture), pixels[:, :, ::-1])


def test_items_load_at_once_and_keep_their_order(root: Path, server: Origin) -> None:
    together = Barrier(3)
    datas = [saved(photograph(seed), "PNG") for seed in range(3)]

    def act(data: bytes) -> Any:
        def send(sock: Any) -> None:
            together.wait(10)
            whole(data)(sock)

        return send

    for number, data in enumerate(datas):
        server.routes[f"/{number}"] = act(data)
    order = [2, 0, 1]
    urls = [server.url(f"/{number}") for number in order]
    for found in (load_image("url", urls), asyncio.run(images.async_url_to_np(urls))):
        for array, number in zip(found, order, strict=True):
            np.testing.assert_array_equal(array, by_pillow(datas[number]))
    pictures = asyncio.run(images.async_url_to_pil(urls))
    assert [picture.size for picture in pictures] == [(93, 61)] * 3


def test_a_url_is_tried_three_times(root: Path, server: Origin) -> None:
    data = saved(photograph(), "PNG")
    turns = [whole(b"", status="503 Busy"), whole(b"", status="500 Broken"), whole(data)]

    def act(sock: Any) -> None:
        turns.pop(0)(sock)

    server.routes["/"] = act
    assert len(load_image("url", [server.url()])) == 1
    turns = [whole(b"", status="503 Busy")] * 3
    asked = len(server.heads)
    assert code("url", server.url()) == 503
    assert len(server.heads) - asked == 3


def test_what_may_not_be_opened_is_tried_once(root: Path, server: Origin) -> None:
    sources.use(Sources(MediaSettings(urls=True)))
    assert code("url", server.url()) == 503
    assert not server.heads


def code(src_type: str, item: Any) -> int:
    with pytest.raises(VqlError) as caught:
        load_image(src_type, [item])
    return caught.value.status_code


def test_failures_have_the_numbers_that_clients_know(root: Path) -> None:
    part, _ = raw(root)
    damaged = b64encode(saved(photograph(), "PNG")[:-300]).decode()
    assert code("h264", "x") == 504
    assert code("base64", b64encode(b"no picture").decode()) == 501
    assert code("base64", "!!") == 501
    assert code("base64", damaged) == 502
    assert code("local", str(root / "missing")) == 503
    assert code("local", "/etc/passwd") == 503
    assert code("mmap", {**part, "size": 59}) == 503
    assert code("mmap", {**part, "position": 5}) == 503
    assert code("mmap", "{") == 501
    assert code("mmap", {"path": part["path"]}) == 501
    with pytest.raises(VqlError) as caught:
        images.video_to_np("x")
    assert caught.value.status_code == 504


def test_nothing_is_nothing(root: Path) -> None:
    assert load_image("url", []) == load_image("stream", ["x"]) == load_image("local", None) == []


def test_a_service_may_bring_its_own_loaders(root: Path) -> None:
    assert load_image("twice", [1, 2, 3], {"twice": lambda item: item * 2}) == [2, 4, 6]
    for items in ([1], [1, 2]):
        with pytest.raises(VqlError) as caught:
            load_image("none", items, {"none": lambda item: None if item == 1 else item})
        assert caught.value.status_code == 503


def test_nothing_but_base64_is_opened_before_the_operator_allows_it(tmp_path: Path) -> None:
    data = saved(photograph(), "PNG")
    (tmp_path / "picture").write_bytes(data)
    part, _ = raw(tmp_path)
    assert code("local", str(tmp_path / "picture")) == 503
    assert code("url", "http://127.0.0.1/") == 503
    assert code("mmap", part) == 503
    assert len(load_image("base64", [b64encode(data).decode()])) == 1
    with pytest.raises(VqlError):
        MmapManager(part["path"]).read(0, 1)


def test_the_loader_of_parts_never_mixes_two_files_in_a_thousand_races(root: Path) -> None:
    size = 3 * 16 * 16
    for name, value in (("a", 1), ("b", 2)):
        (root / name).write_bytes(bytes([value]) * size)
    wrong: list[str] = []

    def read(name: str, value: int) -> None:
        part = {"path": str(root / name), "position": 0, "size": size, "height": 16, "width": 16}
        for _ in range(1000):
            own = MmapManager(str(root / name))
            if set(own.read(0, size)) != {value} or (load_image("mmap", [part])[0] != value).any():
                wrong.append(name)

    threads = [Thread(target=read, args=each) for each in (("a", 1), ("b", 2))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_every_name_of_the_contract_is_there() -> None:
    names = (
        "load_image load_np_image load_pil_image async_url_to_pil async_url_to_np url_to_np "
        "local_to_np base64_to_np mmap_to_np video_to_np url_to_pil local_to_pil base64_to_pil "
        "mmap_to_pil"
    )
    assert all(callable(getattr(images, name)) for name in names.split())
    assert list(inspect.signature(load_image).parameters) == ["src_type", "data", "func_map"]
    assert MmapManager("a", length=0, flags=1, prot=1, period=600).path == "a"
