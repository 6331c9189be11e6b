"""magika, with the number of threads that it leaves to onnxruntime decided."""

import magika
import onnxruntime  # type: ignore[import-untyped]

__all__ = ["Engine"]


class Engine(magika.Magika):
    """magika's own would start a thread for each core, whatever the environment says."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        super().__init__()

    def _init_onnx_session(self) -> onnxruntime.InferenceSession:
        # magika has no setting for this; a test sees when it stops to call this method.
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        return onnxruntime.InferenceSession(
            self._model_path, options, providers=["CPUExecutionProvider"]
        )
