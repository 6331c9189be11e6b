"""What decoding and encoding cost beside bare msgspec, and how fast arrays pass."""

from collections.abc import Callable
from time import perf_counter
from typing import Annotated

import msgspec
import numpy as np

from atomserve import Tensor, Wrapper
from atomserve.codecs.codec import Codec
from atomserve.engine.jobs import Payload
from atomserve.signature import read_contract


class Add(Wrapper):
    def predict(self, a: float, b: float = 1.0) -> float:
        return a + b


class Same(Wrapper):
    def predict(
        self, x: Annotated[np.ndarray, Tensor("float32")]
    ) -> Annotated[np.ndarray, Tensor("float32")]:
        return x


class Inputs(msgspec.Struct):
    a: float
    b: float = 1.0


def seconds(act: Callable[[], object], times: int) -> float:
    """Time one call: the best of five rounds."""
    best = float("inf")
    for _ in range(5):
        start = perf_counter()
        for _ in range(times):
            act()
        best = min(best, (perf_counter() - start) / times)
    return best


def main() -> None:
    body = b'{"a": 1.5, "b": 2}'
    wrapper, codec = Add(), Codec(read_contract(Add))
    bare_decode, bare_encode = msgspec.json.Decoder(Inputs).decode, msgspec.json.Encoder().encode
    payload = Payload(body=body)

    def bare() -> bytes:
        found = bare_decode(body)
        return bare_encode(wrapper.predict(found.a, found.b))

    def ours() -> object:
        return codec.encode(wrapper.predict(*codec.decode(payload)), "json")

    plain, whole = seconds(bare, 50_000), seconds(ours, 50_000)
    print(
        f"tiny JSON request: {whole * 1e6:.2f} us; bare msgspec {plain * 1e6:.2f} us; "
        f"added {(whole - plain) * 1e6:.2f} us"
    )

    arrays = Codec(read_contract(Same))
    array = np.random.default_rng(1).random((640, 640, 3)).astype(np.float32)
    answer = arrays.encode(array, "npy")
    body = b"".join((answer.head, answer.body))
    sent = Payload(form="npy", body=body, media_type=answer.media_type)
    size = array.nbytes / 1e6
    (found,) = arrays.decode(sent)
    assert np.shares_memory(found, np.frombuffer(body, np.uint8))
    decode = seconds(lambda: arrays.decode(sent), 2_000)
    encode = seconds(lambda: arrays.encode(array, "npy"), 50)
    print(f"{size:.1f} MB npy: decode {decode * 1e6:.1f} us ({size / decode:,.0f} MB/s, a view)")
    print(f"{size:.1f} MB npy: encode {encode * 1e6:.1f} us ({size / encode:,.0f} MB/s, a view)")
    for form in ("msgpack", "json"):
        rate = size / seconds(lambda form=form: arrays.encode(array, form), 3)
        print(f"{size:.1f} MB {form}: encode {rate:,.0f} MB/s of array")


if __name__ == "__main__":
    main()
