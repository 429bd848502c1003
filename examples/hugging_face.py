"""A Hugging Face Trainer with a ``LossBalancer``: ``pip install "transformers[torch]"``, ``python examples/hugging_face.py``.

A tiny BERT, made from its configuration (nothing is downloaded), reads molecules letter by letter and predicts in which of three
assays they are active; many labels are missing. ``compute_loss`` returns the weighted loss; a callback saves the balancer's memory
beside each checkpoint.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import BertConfig, BertModel, Trainer, TrainerCallback, TrainingArguments

import mtl_gym

TASKS = ("NR-AhR", "SR-ARE", "SR-MMP")
LENGTH, FILE = 48, "balancer.pt"


class Network(nn.Module):
    """BERT, and a head for each assay."""

    def __init__(self, letters):
        super().__init__()
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        self.trunk = BertModel(BertConfig(vocab_size=letters, max_position_embeddings=LENGTH, **sizes), add_pooling_layer=False)
        self.heads = nn.Linear(32, len(TASKS))

    def forward(self, input_ids, attention_mask, labels=None):
        """Logits (B, K); labels are for the losses, which the trainer computes."""
        states = self.trunk(input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, C)
        mask = attention_mask[:, :, None]
        return {"logits": self.heads((states * mask).sum(1) / mask.sum(1))}  # (B, K)


class BalancedTrainer(Trainer):
    """A Trainer whose losses a balancer weights."""

    def __init__(self, *args, balancer, **kwargs):
        super().__init__(*args, **kwargs)
        self.balancer = balancer

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        """The weighted sum of the tasks' mean losses; a task without a label in the batch has the loss NaN, and is left out."""
        outputs = model(**inputs)
        logits, labels = outputs["logits"], inputs["labels"]
        known = ~labels.isnan()
        losses = {}
        for place, task in enumerate(TASKS):
            own = known[:, place]
            losses[task] = functional.binary_cross_entropy_with_logits(logits[own, place], labels[own, place])
        self.balancer.train(model.training)  # it is no part of the model, whose files take tensors alone
        loss = self.balancer(losses)
        return (loss, outputs) if return_outputs else loss


class SaveBalancer(TrainerCallback):
    """Saves the balancer's memory beside each checkpoint."""

    def __init__(self, balancer):
        self.balancer = balancer

    def on_save(self, args, state, control, **kwargs):
        """After the checkpoint is written."""
        torch.save(self.balancer.state_dict(), Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)


def molecules(count):
    """Molecules of the Tox21 challenge as tokens, and their labels, of which some are missing; the size of the alphabet."""
    data = np.load(Path(mtl_gym.__file__).parent / "data" / "tox21.npz")
    texts = data["smiles"].tobytes().decode().split("\n")[:count]
    alphabet = {letter: place + 1 for place, letter in enumerate(sorted(set("".join(texts))))}  # 0 pads
    columns = [data["assays"].tolist().index(task) for task in TASKS]
    labels = data["labels"][:count, columns].astype(np.float32)
    labels[labels < 0] = np.nan
    tokens = np.zeros((count, LENGTH), dtype=np.int64)
    for row, text in enumerate(texts):
        own = [alphabet[letter] for letter in text[:LENGTH]]
        tokens[row, : len(own)] = own
    rows = zip(tokens, (tokens > 0).astype(np.int64), labels, strict=True)
    return [{"input_ids": own, "attention_mask": mask, "labels": known} for own, mask, known in rows], len(alphabet) + 1


def made(policy, steps, folder, data, letters):
    """A trainer and its balancer."""
    torch.manual_seed(0)
    arguments = TrainingArguments(
        output_dir=folder,
        max_steps=steps,
        per_device_train_batch_size=32,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        save_steps=steps // 2,
        logging_steps=steps // 4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    balancer = mtl_gym.LossBalancer(policy, TASKS, lr=arguments.learning_rate, train_steps=steps, steps_per_epoch=len(data) // 32)
    train, test = data[: -len(data) // 5], data[-len(data) // 5 :]
    network = Network(letters)
    callbacks = [SaveBalancer(balancer)]
    return BalancedTrainer(network, arguments, train_dataset=train, eval_dataset=test, callbacks=callbacks, balancer=balancer)


def main(policy="uw", steps=80, count=1500):
    """Trains, and trains the second half again from the checkpoint; returns both trainers."""
    data, letters = molecules(count)
    with tempfile.TemporaryDirectory() as folder:
        whole = made(policy, steps, folder, data, letters)
        whole.train()
        checkpoint = Path(folder) / f"checkpoint-{steps // 2}"
        resumed = made(policy, steps, folder, data, letters)
        resumed.balancer.load_state_dict(torch.load(checkpoint / FILE, weights_only=True))
        resumed.train(resume_from_checkpoint=str(checkpoint))
        loss = resumed.evaluate()["eval_loss"]
    weights = ", ".join(f"{task} {weight:.2g}" for task, weight in resumed.balancer.weights.items())
    print(f"{policy}: weighted test loss {loss:.3f}; last weights after an interruption: {weights}")
    return whole, resumed


if __name__ == "__main__":
    main(*sys.argv[1:2])
