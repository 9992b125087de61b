"""A contrastive loss over the rows of all ranks; as a script, one rank of two: `gathering.py FOLDER RANK COUNTS...`."""

import sys

import torch

from gmp_plugin.modules.contrastive import agreement, gemo_clap_loss
from gmp_plugin.modules.gather import gather_rows


def sides():
    """Eight recordings and their texts, side by side, float64."""
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss_of(x, labels):
    """Of these rows with those of all ranks; `labels` are emotion and gender."""
    everything, own = gather_rows(x)
    audio, text = everything.chunk(2, 1)
    labels, _ = gather_rows(labels)
    emotion, gender = (agreement(kind[own], kind).double() for kind in labels.T)
    return gemo_clap_loss(audio[own] @ text.T, 2 * text[own] @ audio.T, emotion, gender, "ml", 0.7, "l1")


def loss_and_gradient(part):
    x = sides()[part].requires_grad_()
    loss = loss_of(x, torch.stack([torch.arange(8) % 3, torch.arange(8) % 2], 1)[part])
    loss.backward()
    return loss.detach(), x.grad


if __name__ == "__main__":
    folder, rank, *counts = sys.argv[1:]
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=int(rank), world_size=2)
    parts = [slice(0, int(n)) if rank == "0" else slice(int(n), 8) for n in counts]
    torch.save([loss_and_gradient(part) for part in parts], f"{folder}/rank{rank}.pt")
    torch.distributed.barrier()  # neither leaves while the other still needs it
    torch.distributed.destroy_process_group()
