"""The identity of benchmarks/models/identity.py on PyTriton, in an environment of its own.

python benchmarks/pytriton_identity.py PORT
"""

import sys

import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

SHAPE = (640, 640, 3)


def identity(requests):
    return [{"same": request["picture"]} for request in requests]


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(sys.argv[1]),
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="identity",
            infer_func=identity,
            inputs=[Tensor(name="picture", dtype=np.float32, shape=SHAPE)],
            outputs=[Tensor(name="same", dtype=np.float32, shape=SHAPE)],
            config=ModelConfig(batching=False),
        )
        triton.serve()
