"""Export of generators: one file that can be used without the run folder.

run.export("generator.safetensors")     # the weights by their plain names, and how to read them
run.export("generator.pt2")             # torch.export: noise [n, noise_size] -> images [n, C, H, W] in [0, 1]
run.export("generator.onnx")            # the same for ONNX (needs the packages onnx and onnxscript)
generator = pygan.export.load_generator("generator.safetensors")
"""

import copy
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pygan._files import damaged, replace_file, require_regular
from pygan._session import own_defaults
from pygan.checkpoint import plain_state, take_over
from pygan.data.scaling import SCALES, Scale
from pygan.recipes import Recipe
from pygan.settings import find

if TYPE_CHECKING:
    from pygan.run import Run

__all__ = ["Pictures", "export", "load_generator", "model_card"]

_REMEDY = "Export it again from its run"
_CARD = """\
---
library_name: pygan
tags: [gan, image-generation]
---
# {name}

A generator of images {shape}, trained by pygan {version} with the recipe `{recipe}`.

Data: {splits}.

| | |
| --- | --- |
| log-likelihood of the test split, nats | {log_likelihood} +- {standard_error} |
| the same with training images in place of samples | {training_images} |
| spread of the samples (1: as much as the data) | {spread} |

{protocol}.
This number compares models that were evaluated in the same way; it does not tell how good the pictures look.

```python
import pygan{imports}

generator = pygan.export.load_generator("generator.safetensors"{own})
images = generator(pygan.noise.draw_noise("{noise}", 16, {noise_size}){labels})  # [16, C, H, W] in [0, 1]
```
"""


class Pictures(nn.Module):
    """A generator with its pixel scale inverted: noise [n, noise_size] (and labels [n]) -> [n, C, H, W] in [0, 1]."""

    def __init__(self, generator: nn.Module, scale: Scale, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.generator, self.scale, self.shape = generator, scale, shape

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """See the class."""
        images = self.generator(noise) if labels is None else self.generator(noise, labels)
        return self.scale.invert(images.reshape(-1, *self.shape)).contiguous()


def export(run: "Run", path: str | Path) -> Path:
    """Write the run's generator to one file; return its path. See `Run.export`."""
    path = Path(path).expanduser()
    writers = {".safetensors": _safetensors, ".pt2": _torch_export, ".onnx": _onnx}
    if path.suffix.lower() not in writers:
        raise ValueError(f"export: path must end in {', '.join(writers)}, got {str(path)!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    writers[path.suffix.lower()](run, path)
    return path


@own_defaults(torch.device("cpu"))
def load_generator(path: str | Path, generator: nn.Module | None = None) -> Pictures:
    """Return the generator of a file that `Run.export` wrote as .safetensors, in eval mode on the CPU.

    Args:
        path: the file.
        generator: if you trained your own module, a module of the same structure; its weights are overwritten.

    Raises:
        ValueError: the file is damaged, is of another kind, or needs `generator`.
        OSError: it cannot be read.
    """
    import safetensors

    path = Path(path).expanduser()
    require_regular(path, _REMEDY)
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
            about: dict[str, Any] = json.loads((file.metadata() or {})["pygan"])
        shape, scale = tuple(about["shape"]), dict(about["scale"])
        if generator is None and not about["own"]:
            recipe = Recipe().with_settings(**about["recipe"])
            generator = recipe.model.make_generator(shape, about["noise_size"], about["classes"])
            generator = recipe.model.place(generator, torch.device("cpu"))
        pixels = find("scale", scale.pop("name"), SCALES)(**scale)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise damaged(path, error, _REMEDY) from None
    if generator is None:
        raise ValueError(f"load_generator: {path} has the weights of a user's module; pass one as generator=")
    take_over({"generator": generator}, {f"generator.{name}": t for name, t in tensors.items()}, str(path))
    return Pictures(generator, pixels, shape).eval()


def model_card(run: "Run", result: Mapping[str, Any]) -> str:
    """Return a description of the generator in Markdown, with the header that the Hugging Face Hub reads."""
    references = result["reference_log_likelihood"]
    numbers = {**result, "training_images": references["training images"]}
    named = ("log_likelihood", "standard_error", "training_images", "spread")
    return _CARD.format(
        name=run.path.name,
        shape=" x ".join(map(str, run.shape)),
        version=result["versions"]["pygan"],
        recipe=run.recipe.name,
        splits=result["splits"],
        protocol=result["protocol"],
        own=", generator=..." if "generator" in run.own_players else "",
        noise=run.game.noise,
        noise_size=run.game.noise_size,
        imports="\nimport torch" if run.game.classes else "",
        labels=f", torch.arange(16) % {run.game.classes}" if run.game.classes else "",
        **{name: _shown(numbers[name]) for name in named},
    )


def _shown(number: float | None) -> str:
    return "unknown" if number is None or not math.isfinite(number) else f"{number:.2f}"


def _safetensors(run: "Run", path: Path) -> None:
    import safetensors.torch

    state = plain_state(run.generator)
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    own = run.own_players
    about = {
        "shape": run.shape,
        "noise": run.game.noise,
        "noise_size": run.game.noise_size,
        "classes": run.game.classes,
        "scale": {"name": run.game.scale.name, **run.game.scale.state()},
        "recipe": run.recipe.flat(own),
        "own": "generator" in own,
    }
    replace_file(path, safetensors.torch.save(tensors, {"pygan": json.dumps(about)}))


def _torch_export(run: "Run", path: Path) -> None:
    module, inputs = _exportable(run)
    n = torch.export.Dim("n", min=1)
    with torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=tuple({0: n} for _ in inputs))
    content = io.BytesIO()  # torch's own writer aborts the process on a full disk
    torch.export.save(program, content)
    replace_file(path, content.getvalue())


def _onnx(run: "Run", path: Path) -> None:
    module, inputs = _exportable(run)
    n = torch.export.Dim("n", min=1)
    with torch.no_grad():
        program = torch.onnx.export(module, inputs, dynamo=True, dynamic_shapes=tuple({0: n} for _ in inputs))
    assert program is not None
    replace_file(path, program.model_proto.SerializeToString())


def _exportable(run: "Run") -> tuple[Pictures, tuple[Tensor, ...]]:
    """The generator in eval mode, and inputs for two images."""
    module = Pictures(copy.deepcopy(run.generator), run.game.scale, run.shape).eval()  # training may go on
    device = next((parameter.device for parameter in run.generator.parameters()), torch.device("cpu"))
    inputs = [run.noise(2, 0).to(device)]
    if run.game.classes:
        inputs.append(torch.arange(2, device=device) % run.game.classes)
    return module, tuple(inputs)
