"""The examples that need other libraries: Lightning and ``transformers``; each is also a script."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def examples(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)


def equal(module, other):
    return all(torch.equal(own, its) for own, its in zip(module.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("accumulate", [1, 3])  # an epoch has 20 batches
def test_a_lightning_module_resumes_its_balancer(accumulate):
    import lightning_module

    whole, resumed, logged = lightning_module.main(epochs=4, accumulate=accumulate)
    assert whole.balancer.step == resumed.balancer.step == 4 * math.ceil(20 / accumulate)
    assert whole.balancer.weights == resumed.balancer.weights
    assert equal(whole, resumed)
    assert len({1.0, *whole.balancer.weights.values()}) == 3
    assert logged["weights/ink"] == pytest.approx(whole.balancer.weights["ink"])
    assert logged["validation/ink"] < 9.2e4  # the square of its mean is 9.8e4


def test_lightning_accumulates_the_gradients_of_the_weighted_losses():
    import lightning
    import lightning_module

    module, reference = lightning_module.Module("ew", accumulate=2), lightning_module.Module("ew")
    reference.load_state_dict({name: own for name, own in module.state_dict().items() if "balancer" not in name}, strict=False)
    batch = next(iter(lightning_module.loaders()[0]))
    module.log_dict = lambda *arguments: None
    module.trainer = lightning.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    loss = module.training_step(batch, 0)  # which Lightning divides by 2
    assert loss.item() == pytest.approx(sum(reference.losses(batch).values()).item(), rel=1e-5)


def test_hugging_face_resumes_the_balancer_from_the_file_beside_its_checkpoint():
    import hugging_face

    whole, resumed = hugging_face.main(steps=40, count=600)
    assert whole.balancer.step == resumed.balancer.step == 40
    assert whole.balancer.weights == resumed.balancer.weights
    assert equal(whole.model, resumed.model)
    assert len({1.0, *whole.balancer.weights.values()}) == 4
    losses = [entry["loss"] for entry in whole.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", ["lightning_module", "hugging_face"])
def test_they_are_scripts(name, tmp_path):
    answer = subprocess.run([sys.executable, EXAMPLES / f"{name}.py"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert "last weights after an interruption" in answer.stdout
