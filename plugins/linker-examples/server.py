"""A service as linker_atom's README describes them: it counts the colours of pictures."""

import argparse
import json
import os

import uvicorn
from pydantic import BaseModel
from uvicorn.loops.auto import auto_loop_setup

os.environ.setdefault("ATOM_API_PREFIX", "/colours")
META = {
    "abilityCode": "COLOURS_1",
    "abilityCodeInstance": "COLOURS_1_a",
    "abilityDependAtomCodes": ["colours"],
    "atomCode": "colours",
    "atomProcessUrl": "/colours/v1/count",
    "k8sHealthcheckUrl": "/colours/v1/health/ping",
    "modelIds": "warm,cold",
    "servingHost": "",
    "servingPort": "0",
    "svcAddress": "http://colours.example:8000",
}
os.environ.setdefault("META", json.dumps(META))

from linker_atom.api.app import get_app
from linker_atom.api.base import UdfAPIRoute
from linker_atom.api.schema.response import SuccessResponse
from linker_atom.config import settings
from linker_atom.lib.common import record_duration
from linker_atom.lib.exception import VqlError
from linker_atom.lib.log import logger

app = get_app()
parser = argparse.ArgumentParser(description="Count colours.")
parser.add_argument("--port", type=int, default=8000)
args = parser.parse_args()

PALETTES = {
    "warm": {"red": (255, 0, 0), "yellow": (255, 255, 0)},
    "cold": {"blue": (0, 0, 255), "green": (0, 128, 0)},
}
models = {}


@app.on_event("startup")
async def load_models():
    for model_id in settings.model_id_list:
        models[model_id] = PALETTES[model_id]
        logger.info("loaded %s", model_id)


class Pixels(BaseModel):
    model: str
    pixels: list[tuple[int, int, int]]


route = UdfAPIRoute()


@record_duration
def nearest(palette, pixel):
    def distance(name):
        return sum((a - b) ** 2 for a, b in zip(palette[name], pixel, strict=True))

    return min(palette, key=distance)


@route.post("/v1/count", name="count")
async def count(body: Pixels):
    if body.model not in models:
        raise VqlError(514)
    found = [nearest(models[body.model], pixel) for pixel in body.pixels]
    return SuccessResponse(data={name: found.count(name) for name in sorted(set(found))})


app.include_router(router=route, prefix=settings.atom_api_prefix)


def run():
    auto_loop_setup(True)
    uvicorn.run(app="server:app", host="0.0.0.0", port=args.port, access_log=False)


if __name__ == "__main__":
    run()
