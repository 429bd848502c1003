"""A LightningModule that holds a ``LossBalancer``: ``pip install lightning``, then ``python examples/lightning_module.py``.

``training_step`` returns the weighted loss, and Lightning does the rest. The balancer is a part of the module, so checkpoints hold
its memory and a resumed training decides as if it had not been interrupted; in validation it uses the last weights.
"""

import sys
import tempfile
from pathlib import Path

import lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import mtl_gym

TASKS = ("digit", "ink")


class Module(lightning.LightningModule):
    """Two tasks on images of digits; losses of policies that balance gradients would need manual optimisation."""

    def __init__(self, policy="uw", lr=2e-3, steps_per_epoch=20, accumulate=1):
        super().__init__()
        self.save_hyperparameters()
        self.trunk = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.heads = nn.ModuleDict({"digit": nn.Linear(64, 10), "ink": nn.Linear(64, 1)})
        self.balancer = mtl_gym.LossBalancer(policy, TASKS, lr=lr, steps_per_epoch=steps_per_epoch, accumulate=accumulate)

    def losses(self, batch):
        """The loss of each task; ``ink`` is the sum of all pixels."""
        images, digits = batch
        features = self.trunk(images)
        return {
            "digit": functional.cross_entropy(self.heads["digit"](features), digits),
            "ink": functional.mse_loss(self.heads["ink"](features)[:, 0], 16 * images.sum(1)),
        }

    def training_step(self, batch, index):
        """The weighted loss. The balancer and Lightning both divide by the number of accumulated batches: one has to be undone."""
        loss = self.hparams.accumulate * self.balancer(self.losses(batch), last=self.trainer.is_last_batch)
        self.log_dict({f"weights/{task}": weight for task, weight in self.balancer.weights.items()})
        return loss

    def validation_step(self, batch, index):
        """The loss of each task."""
        self.log_dict({f"validation/{task}": loss for task, loss in self.losses(batch).items()})

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


def loaders():
    """Training and validation batches, in a fixed order."""
    images, digits = (torch.as_tensor(own) for own in load_digits(return_X_y=True))
    data = TensorDataset(images.float() / 16, digits)
    parts = torch.utils.data.random_split(data, [1280, 517], torch.Generator().manual_seed(0))
    return [DataLoader(part, batch_size=64) for part in parts]


def train(module, epochs, folder, checkpoint=None):
    """Trains up to so many epochs, from a checkpoint if there is one; returns the path of a new one and what was logged."""
    accumulate = module.hparams.accumulate
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, *loaders(), ckpt_path=checkpoint, weights_only=True)
    path = Path(folder) / f"{epochs}.ckpt"
    trainer.save_checkpoint(path)
    return path, {name: float(value) for name, value in trainer.callback_metrics.items()}


def main(policy="uw", epochs=6, accumulate=1):
    """Trains once without and once with an interruption; returns both modules and what was logged last."""
    with tempfile.TemporaryDirectory() as folder:
        lightning.seed_everything(0, verbose=False)
        whole = Module(policy, accumulate=accumulate)
        start = {name: own.clone() if isinstance(own, torch.Tensor) else own for name, own in whole.state_dict().items()}
        first = Module(policy, accumulate=accumulate)
        first.load_state_dict(start)
        train(whole, epochs, folder)
        path, _ = train(first, epochs // 2, folder)
        resumed = Module.load_from_checkpoint(path, weights_only=True)
        _, logged = train(resumed, epochs, folder, path)
    weights = ", ".join(f"{task} {weight:.2g}" for task, weight in resumed.balancer.weights.items())
    print(f"{policy}: {', '.join(f'{name} {value:.3g}' for name, value in logged.items())}")
    same = resumed.balancer.weights == whole.balancer.weights
    print(f"last weights after an interruption: {weights}; the same as without: {same}")
    return whole, resumed, logged


if __name__ == "__main__":
    main(*sys.argv[1:2])
