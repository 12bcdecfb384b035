"""train/sharding.py, state.py: two ranks that hold half of everything train what one process trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from test_golden import V, Walks
from torch import Tensor, nn
from torch.testing import assert_close
from toys import Net, state

from mio.checkpoint import load_tensors, verify
from mio.models.backbone import Backbone, BackboneConfig
from mio.train import state as states
from mio.train.loop import Fit, fit
from mio.train.optim import Optim
from mio.train.parallel import rank, run_ranks, torchrun
from mio.train.sharding import shard, sharded, whole_state
from mio.train.state import Pieces, saved
from mio.types import MioError, ResourceError

SHAPE = BackboneConfig(V, 2, 24, 3, 1, 8, 41, 10_000.0, positions=64, tied=True)  # 41 rows do not go into two halves
KINDS = {"adamw": False, "muon": True}


def train(folder: Path, muon: bool, steps: int, replicas: int = 0, save_every: int = 3) -> Walks:
    """`replicas`: 0 for whole ranks."""
    torch.manual_seed(4)
    objective = Walks(Backbone(SHAPE))
    if replicas:
        shard(objective.module, replicas)
    c = Fit(steps, Optim(1e-2, warmup=0, floor=1, muon=muon), save_every, log_every=1, bf16=False, parts=4)
    fit(objective, c, folder, "walk", folder / "metrics.jsonl")
    return objective


def keep(objective: Walks, path: Path) -> None:
    """Its weights, gathered."""
    tensors = whole_state(objective.module)
    if rank() == 0:
        save_file(tensors, path)


def work(folder: Path) -> None:
    """All that two ranks do here, in one start of processes."""
    for name, muon in KINDS.items():
        objective = train(folder / name, muon, 6, 1)
        assert sharded(objective.module)
        assert type(objective.module.model.norm) is type(Backbone(SHAPE).model.norm)
        keep(objective, folder / f"{name}.safetensors")
    keep(train(folder / "replicas", False, 6, 2), folder / "replicas.safetensors")
    keep(
        train(folder / "alone", True, 6, 1), folder / "alone.safetensors"
    )  # goes on from a state that one process wrote
    refuse_one_write(folder / "refused")


def refuse_one_write(folder: Path) -> None:
    """The second rank's disk is full from the second save on."""
    real = states.commit

    def commit(target: Path, write: object) -> None:
        if rank() == 1 and "00000004" in str(target):
            raise ResourceError("Could not write: no space left.")
        real(target, write)  # type: ignore[arg-type]

    states.commit = commit
    try:
        train(folder, False, 6, 1, save_every=2)
    except ResourceError as error:
        (folder / f"rank{rank()}").write_text(f"{error.exit_code} {error}")
    states.commit = real


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two sharded ranks left; before them, one process trained half the steps in `alone`."""
    folder = tmp_path_factory.mktemp("sharded")
    train(folder / "alone", True, 3)
    run_ranks(work, (folder,), 2, 1)
    return folder


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def trained(objective: Walks) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in objective.module.state_dict().items()}


@pytest.mark.parametrize(("name", "muon"), KINDS.items())
def test_two_shards_train_what_one_process_trains(two: Path, tmp_path: Path, name: str, muon: bool) -> None:
    one = train(tmp_path, muon, 6)
    assert losses(two / name) == pytest.approx(losses(tmp_path), rel=1e-5, abs=1e-5)
    assert losses(tmp_path)[-1] < 0.9 * losses(tmp_path)[0]
    assert_close(load_tensors(two / f"{name}.safetensors"), trained(one), rtol=1e-4, atol=2e-5)


def test_replicas_of_the_whole_train_the_same(two: Path) -> None:
    assert losses(two / "replicas") == pytest.approx(losses(two / "adamw"), rel=1e-5)
    weights = [load_tensors(two / f"{name}.safetensors") for name in ("replicas", "adamw")]
    assert_close(weights[0], weights[1], rtol=1e-4, atol=2e-5)
    assert {p.name for p in state(two / "replicas").glob("module*")} == {"module.0-of-1.safetensors"}


@pytest.mark.parametrize(("name", "muon"), KINDS.items())
def test_every_rank_writes_half_and_one_process_goes_on_from_both(
    two: Path, tmp_path: Path, name: str, muon: bool
) -> None:
    folder = state(two / name)
    verify(folder)
    rows = [
        safe_open(folder / f"module.{n}-of-2.safetensors", "pt").get_slice("model.layers.0.mlp.gate_proj.weight")
        for n in (0, 1)
    ]
    assert [r.get_shape() for r in rows] == [[21, 24], [20, 24]]
    assert_close(dict(Pieces(folder, "module")), load_tensors(two / f"{name}.safetensors"), rtol=0, atol=0)
    (tmp_path / "state").mkdir()
    folder.rename(tmp_path / "state" / folder.name)  # the last test that needs it
    one, unbroken = train(tmp_path, muon, 9), train(tmp_path / "whole", muon, 9)
    assert losses(tmp_path) == pytest.approx(losses(tmp_path / "whole")[6:], rel=1e-5)
    assert_close(trained(one), trained(unbroken), rtol=1e-4, atol=5e-5)


def test_two_shards_go_on_from_a_state_that_one_process_wrote(two: Path) -> None:
    assert losses(two / "alone") == pytest.approx(losses(two / "muon"), rel=1e-5)
    assert_close(load_tensors(two / "alone.safetensors"), load_tensors(two / "muon.safetensors"), rtol=1e-4, atol=2e-5)


def test_a_rank_that_cannot_write_ends_all_and_the_state_before_stays_whole(two: Path) -> None:
    folder = two / "refused"
    said = [(folder / f"rank{n}").read_text() for n in (0, 1)]
    assert said == ["5 Another rank could not write its part of a state.", "5 Could not write: no space left."]
    assert [p.name for p in saved(folder / "state")] == ["00000002"]
    verify(folder / "state" / "00000002")


def test_alone_nothing_is_sharded_and_buffers_never_are() -> None:
    model = Backbone(SHAPE)
    shard(model)
    assert not sharded(model)
    assert_close(whole_state(model), dict(model.state_dict()), rtol=0, atol=0)
    with pytest.raises(MioError, match="keeps buffers") as caught:
        shard(nn.Sequential(nn.Linear(2, 2), Net()))
    assert caught.value.at == "1.quantize"
    with pytest.raises(MioError, match="1 ranks do not go into 2 groups"):
        shard(Backbone(SHAPE), 2)


def main() -> None:
    """What torchrun starts: halfway the second rank dies, once."""
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with torchrun():
        assert dist.get_world_size() == 2
        if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            train(folder, False, 3, 1)
            if rank() == 1:
                os._exit(1)
        run_ranks(lambda: keep(train(folder, False, 6, 1), folder / "run.safetensors"), (), 2, 1)


@pytest.mark.slow
def test_processes_of_torchrun_are_ranks_and_restarted_ones_go_on(two: Path, tmp_path: Path) -> None:
    started = ["torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1", __file__, str(tmp_path)]
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", *started], check=True, env=environment)
    assert losses(tmp_path) == losses(two / "adamw")
    weights = [load_tensors(tmp_path / "run.safetensors"), load_tensors(two / "adamw.safetensors")]
    assert_close(*weights, rtol=0, atol=0)


if __name__ == "__main__":
    main()
