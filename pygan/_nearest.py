"""Help for a word that is not known: what was meant by it, or what is spelled like it."""

import difflib
from collections.abc import Iterable

__all__ = ["nearest"]

# What others call it -> what it is called here.
_MEANINGS = {
    "adam": ("optimizer",),
    "amp": ("precision",),
    "arch": ("model",),
    "architecture": ("model",),
    "batch": ("batch_size",),
    "beta1": ("adam_beta1",),
    "beta2": ("adam_beta2",),
    "betas": ("adam_beta1", "adam_beta2"),
    "bf16": ("precision",),
    "bs": ("batch_size",),
    "class": ("conditional", "labels"),
    "classes": ("conditional", "labels"),
    "continue": ("resume",),
    "crop": ("image_size",),
    "cuda": ("device",),
    "d_steps": ("k",),
    "dir": ("out",),
    "dropout": ("keep_input", "keep_hidden"),
    "early_stopping": ("patience",),
    "ema": ("averaging",),
    "fp16": ("precision",),
    "gpu": ("device",),
    "hidden": ("generator_hidden", "discriminator_hidden"),
    "iterations": ("epochs",),
    "iters": ("epochs",),
    "label": ("conditional", "labels"),
    "labels": ("conditional",),
    "latent": ("noise_size",),
    "latent_dim": ("noise_size",),
    "layers": ("generator_hidden", "discriminator_hidden"),
    "learning_rate": ("generator_lr", "discriminator_lr"),
    "loss": ("objective",),
    "lr": ("generator_lr", "discriminator_lr"),
    "n_critic": ("k",),
    "nz": ("noise_size",),
    "outdir": ("out",),
    "output": ("out",),
    "rate": ("generator_lr", "discriminator_lr"),
    "resolution": ("image_size",),
    "size": ("image_size",),
    "steps": ("epochs",),
    "workers": ("threads",),
    "z_dim": ("noise_size",),
}


def nearest(word: str, known: Iterable[str]) -> str:
    """What to append to the message about an unknown word: "; did you mean 'mnist'?", or nothing if none is near.

    A word that others use for the same thing counts first, then a known word that has it as a part
    ("hidden": "generator_hidden"), then the spelling. Options of a command line (--batch-size) are compared by name.
    """
    names = {_name(candidate): candidate for candidate in known}
    word = _name(word)
    if word in names:  # but for capitals
        return f"; did you mean {names[word]!r}?"
    meant = [names[name] for name in _MEANINGS.get(word, ()) if name in names]
    parts = [candidate for name, candidate in names.items() if word in name.split("_")]
    if not meant and 0 < len(parts) <= 3:
        meant = parts
    if not meant:
        meant = [names[name] for name in difflib.get_close_matches(word, names, n=1)]
    return f"; did you mean {' or '.join(map(repr, meant))}?" if meant else ""


def _name(word: str) -> str:
    return word.lower().lstrip("-").replace("-", "_")
