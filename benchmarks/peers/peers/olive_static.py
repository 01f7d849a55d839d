"""Olive: its ONNX static quantization pass as a workflow, with its defaults."""

from __future__ import annotations

import shutil

import torch
from job_io import Job, run_job
from olive.data.registry import Registry
from olive.workflows import run


class Samples(torch.utils.data.Dataset):
    def __init__(self, job: Job) -> None:
        self.job = job

    def __len__(self) -> int:
        return len(self.job.calibration)

    def __getitem__(self, index: int) -> tuple[dict[str, torch.Tensor], int]:
        return {self.job.input_name: torch.from_numpy(self.job.calibration[index])}, 0


def quantize(job: Job) -> None:
    @Registry.register_dataset("peer_samples")
    def peer_samples(**_: object) -> Samples:
        return Samples(job)

    out = job.folder / "olive"
    shutil.rmtree(out, ignore_errors=True)
    run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(job.fp32)},
            "data_configs": [
                {
                    "name": "calibration",
                    "type": "DataContainer",
                    "load_dataset_config": {"type": "peer_samples"},
                    "dataloader_config": {"batch_size": 1},
                }
            ],
            "passes": {
                "quantize": {
                    "type": "OnnxStaticQuantization",
                    "data_config": "calibration",
                    **job.settings,
                }
            },
            "output_dir": str(out),
            "cache_dir": str(job.folder / "olive-cache"),
            "log_severity_level": 3,
        }
    )
    (written,) = sorted(out.rglob("*.onnx"))
    shutil.copyfile(written, job.model)


if __name__ == "__main__":
    run_job(quantize)
