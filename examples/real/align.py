"""Align the base: its projector, and LoRA factors beside it, learn to name pictures.

It learns from captions alone (data.py writes them to align.json). The vision tower is frozen, so the
features of a few views of every picture are computed once and kept in the device's memory.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from adapter import Factors, apply, store
from packages import ROOT
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor

from fcit.files import check_new_folder, read_json
from fcit.models.device import choose
from fcit.models.images import open_image, read_ahead
from fcit.seeds import numpy_stream, torch_stream
from fcit.types import FcitError
from fcit.watch import Terminal
from fcit.weights import load, save

TOKENS = 49
CHUNK = 64  # pictures that pass the vision tower at once
HELD_OUT = 0.05  # share of the captions

QUESTIONS = (
    "What is this?",
    "Describe the picture.",
    "What do you see?",
    "What is in the picture?",
    "Name what is shown.",
)
QUESTION = "{question}"  # where it stands in the template
CHOICE = "Which of these is in the picture?\n{}"


@dataclass(frozen=True)
class Settings:
    """How to align."""

    steps: int
    batch: int
    rank: int
    lr: float
    projector_lr: float
    views: int
    choices: float
    """Share of the examples that offer four captions to choose from."""
    seed: int


@dataclass(frozen=True)
class Example:
    """One conversation about a picture as token ids: all of them, and how many belong to the question."""

    picture: int
    tokens: list[int]
    question: int


class Captions:
    """Captioned pictures, and the conversations made of them."""

    def __init__(self, file: Path, processor: Any, limit: int, seed: int):
        records = read_json(file)
        self.paths = [file.parent / "datasets" / record["image"] for record in records][:limit]
        self.texts = [record["caption"] for record in records][:limit]
        self.processor = processor
        content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
        asked = [{"role": "user", "content": content}]
        written = processor.apply_chat_template(asked, add_generation_prompt=True)
        self.template = written.replace("<image>", "<image>" * TOKENS)
        names = sorted({text.lower() for text in self.texts})
        order = numpy_stream(seed, "align held out").permutation(len(names))
        held = {names[int(at)] for at in order[: max(1, round(HELD_OUT * len(names)))]}
        self.train = [i for i, text in enumerate(self.texts) if text.lower() not in held]
        self.held = [i for i, text in enumerate(self.texts) if text.lower() in held]
        if not self.train:
            raise FcitError(
                f"{file}: has too few captions (with --limit) to train and to hold some out"
            )

    def examples(
        self, pictures: list[int], choices: float, draw: np.random.Generator
    ) -> list[Example]:
        """A conversation about each picture: what it is, or which of four captions is its own. The other
        three are drawn one by one, so a caption can stand there twice."""
        questions = []
        for picture in pictures:
            text = QUESTIONS[int(draw.integers(len(QUESTIONS)))]
            if draw.random() < choices:
                drawn = draw.integers(len(self.train), size=3)
                others = [self.texts[self.train[int(i)]] for i in drawn]
                offered = [self.texts[picture], *others]
                draw.shuffle(offered)
                text = CHOICE.format("\n".join(offered))
            questions.append(self.question(text))
        answers = [f"{self.texts[picture]}<|im_end|>" for picture in pictures]
        tokenizer = self.processor.tokenizer
        asked = tokenizer(questions, add_special_tokens=False).input_ids
        given = tokenizer(answers, add_special_tokens=False).input_ids
        return [
            Example(picture, q + a, len(q))
            for picture, q, a in zip(pictures, asked, given, strict=True)
        ]

    def question(self, text: str) -> str:
        """A question about a picture in the model's template, with one <image> per image token."""
        return self.template.replace(QUESTION, text)


@torch.no_grad()
def features(model: Any, captions: Captions, views: int, seed: int) -> Tensor:
    """The vision tower's output [views, pictures, tokens, width]; view 0 is as fcit sees it."""
    tower, device = model.model.vision_tower, model.device
    dtype = next(tower.parameters()).dtype
    total = len(captions.paths)
    kept: Tensor | None = None
    noise = torch_stream(seed, "align views")
    pixels = captions.processor.image_processor
    with Terminal().bar("features", total) as step:
        stream = read_ahead(open_image, captions.paths)
        for start in range(0, total, CHUNK):
            images = [next(stream) for _ in range(min(CHUNK, total - start))]
            plain = pixels(images, return_tensors="pt")["pixel_values"].to(device)
            for view in range(views):
                shown = plain if view == 0 else varied(plain, noise)
                states = tower(shown.to(dtype)).last_hidden_state.flatten(2).transpose(1, 2)
                if kept is None:
                    kept = torch.empty(
                        views, total, *states.shape[1:], dtype=torch.bfloat16, device=device
                    )
                kept[view, start : start + len(images)] = states
            step(start + len(images))
    assert kept is not None
    return kept


def varied(pixels: Tensor, noise: torch.Generator) -> Tensor:
    """The pictures turned, scaled, moved, mirrored and with other contrast, on white; white is 1."""
    count = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=noise)

    angle, scale = uniform(-0.25, 0.25), uniform(0.85, 1.5)
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    rows = torch.stack(
        [
            torch.stack(
                [mirror * scale * angle.cos(), -scale * angle.sin(), uniform(-0.2, 0.2)], 1
            ),
            torch.stack([mirror * scale * angle.sin(), scale * angle.cos(), uniform(-0.2, 0.2)], 1),
        ],
        1,
    ).to(pixels)
    grid = F.affine_grid(rows, list(pixels.shape), align_corners=False)
    moved = 1 - F.grid_sample(1 - pixels, grid, align_corners=False)
    contrast = uniform(0.7, 1.0).to(pixels)[:, None, None, None]
    return 1 - contrast * (1 - moved)


class Aligner:
    """The model with its trained parts, and the loss of conversations."""

    def __init__(self, model: Any, rank: int, seed: int):
        self.model, self.language = model, model.model.language_model
        self.image_id = model.config.image_token_id
        self.head = model.lm_head.weight
        model.requires_grad_(False)
        self.projector = model.model.multi_modal_projector.float().requires_grad_(True)
        self.factors = Factors(self.language, rank, torch_stream(seed, "align factors"))
        self.device, self.dtype = model.device, self.head.dtype

    def loss(self, examples: list[Example], states: Tensor) -> Tensor:
        """The mean loss of the answers' tokens. states: the pictures' features [batch, tokens, width].

        Rows end in padding that no earlier token attends to, so no mask is needed.
        """
        length = max(len(one.tokens) for one in examples)
        ids = np.zeros((len(examples), length), np.int64)
        counts = np.zeros((len(examples), length), bool)
        for row, one in enumerate(examples):
            ids[row, : len(one.tokens)] = one.tokens
            counts[row, one.question : len(one.tokens)] = True
        tokens = torch.from_numpy(ids).to(self.device, non_blocking=True)
        at = torch.from_numpy(np.flatnonzero(counts[:, 1:])).to(self.device, non_blocking=True)
        embedded = self.model.get_input_embeddings()(tokens)
        shown = self.projector(states.float()).to(self.dtype)
        # every conversation has its image at one place: the template writes it before the question
        first = examples[0].tokens.index(self.image_id)
        embedded = torch.cat([embedded[:, :first], shown, embedded[:, first + TOKENS :]], 1)
        self.factors.set(self.dtype)
        hidden = self.language(inputs_embeds=embedded, use_cache=False).last_hidden_state
        chosen = hidden[:, :-1].flatten(0, 1).index_select(0, at)
        targets = tokens[:, 1:].flatten().index_select(0, at)
        return F.cross_entropy((chosen @ self.head.T).float(), targets)

    def trained(self) -> dict[str, Tensor]:
        """The trained tensors by name."""
        own = {f"projector/{name}": value for name, value in self.projector.named_parameters()}
        return {"factors": self.factors.flat, **own}


@torch.no_grad()
def held_out(
    aligner: Aligner, captions: Captions, states: Tensor, settings: Settings
) -> tuple[float, float]:
    """The loss of held-out captions, and that with each picture's features exchanged for another's."""
    draw = numpy_stream(settings.seed, "align held out questions")
    examples = captions.examples(captions.held, 0.0, draw)
    own, other = 0.0, 0.0
    for start in range(0, len(examples), settings.batch):
        part = examples[start : start + settings.batch]
        at = [one.picture for one in part]
        own += aligner.loss(part, states[0, at]).item() * len(part)
        other += aligner.loss(part, states[0, at[1:] + at[:1]]).item() * len(part)
    return own / len(examples), other / len(examples)


def align(
    aligner: Aligner,
    captions: Captions,
    states: Tensor,
    settings: Settings,
    checkpoint: Path,
    minutes: float,
) -> dict[str, str]:
    """Train, and leave the trained parts as they were when the held-out loss was lowest.

    minutes: the time there is (0: no limit); the learning rate falls as if it were the number of steps.
    A checkpoint of the same settings and number of captions is continued: its batches follow from the
    seed and the step.
    """
    trained = aligner.trained()
    groups = [
        {"params": [aligner.factors.flat], "lr": settings.lr, "peak": settings.lr},
        {
            "params": list(aligner.projector.parameters()),
            "lr": settings.projector_lr,
            "peak": settings.projector_lr,
        },
    ]
    optimizer = torch.optim.AdamW(
        groups, weight_decay=0.01, betas=(0.9, 0.99), fused=aligner.device.type == "cuda"
    )
    made_with = json.dumps(asdict(settings) | {"captions": len(captions.train)})
    step, best, lowest = resume(checkpoint, made_with, trained, optimizer)
    every = max(1, settings.steps // 20)
    started, spent, average = time.monotonic(), 0.0, 0.0
    watch = Terminal()
    with watch.bar("align", settings.steps) as bar:
        while step < settings.steps and spent < 1:
            progress = max(step / settings.steps, spent)
            for group in optimizer.param_groups:
                warm = min(1.0, (step + 1) / min(100, 1 + settings.steps // 10))
                group["lr"] = group["peak"] * warm * (0.5 + 0.5 * math.cos(math.pi * progress))
            draw = numpy_stream(settings.seed, "align batch", step)
            at = [
                captions.train[int(i)]
                for i in draw.integers(len(captions.train), size=settings.batch)
            ]
            examples = captions.examples(at, settings.choices, draw)
            view = torch.from_numpy(draw.integers(settings.views, size=settings.batch))
            loss = aligner.loss(examples, states[view, at])
            loss.backward()
            for group in optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            spent = (time.monotonic() - started) / (60 * minutes) if minutes else 0.0
            if step % every == 0 or step == settings.steps or spent >= 1:
                own, other = held_out(aligner, captions, states, settings)
                average = loss.item()
                watch.say(
                    f"step {step}: loss {average:.3f}; held-out captions {own:.3f}, "
                    f"with another's picture {other:.3f}"
                )
                if own < lowest:
                    lowest = own
                    best = {name: value.detach().clone() for name, value in trained.items()}
                keep(checkpoint, made_with, step, lowest, trained, best, optimizer)
            bar(step, f"align, loss {average:.2f}")
    with torch.no_grad():
        for name, value in best.items():
            trained[name].copy_(value)
    own, other = held_out(aligner, captions, states, settings)
    return {
        **{key: str(value) for key, value in asdict(settings).items()},
        "steps done": str(step),
        "captions": str(len(captions.train)),
        "loss of held-out captions": f"{own:.3f}",
        "loss with another picture": f"{other:.3f}",
    }


def keep(
    file: Path,
    made_with: str,
    step: int,
    lowest: float,
    trained: dict[str, Tensor],
    best: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write a checkpoint."""
    tensors = {f"now/{name}": value.detach().cpu() for name, value in trained.items()}
    tensors |= {f"best/{name}": value.cpu() for name, value in best.items()}
    for name, value in trained.items():
        for kind in ("exp_avg", "exp_avg_sq"):
            tensors[f"{kind}/{name}"] = optimizer.state[value][kind].cpu()
    numbers = [float(step), lowest]
    tensors["numbers"] = torch.tensor(numbers, dtype=torch.float64)
    save(file, tensors, note={"settings": made_with})


def resume(
    file: Path, made_with: str, trained: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Tensor], float]:
    """The step to go on from, the best tensors so far and their loss; sets the trained tensors."""
    if not file.exists():
        return 0, {}, math.inf
    from adapter import note

    if note(file).get("settings") != made_with:
        raise FcitError(
            f"{file}: a checkpoint of other settings or captions; remove it or name another --out"
        )
    tensors = load(file)
    step, lowest = tensors["numbers"].tolist()
    best = {}
    with torch.no_grad():
        for name, value in trained.items():
            value.copy_(tensors[f"now/{name}"])
            best[name] = tensors[f"best/{name}"].to(value.device)
            optimizer.state[value] = {
                "step": torch.tensor(step, device=value.device if value.is_cuda else "cpu").float(),
                "exp_avg": tensors[f"exp_avg/{name}"].to(value.device),
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"].to(value.device),
            }
    return int(step), best, lowest


@torch.no_grad()
def show(aligner: Aligner, captions: Captions, states: Tensor, count: int) -> None:
    """Print what the model says of a few held-out pictures, beside their captions."""
    aligner.factors.set(aligner.dtype)
    question = captions.processor.tokenizer(
        captions.question(QUESTIONS[0]), add_special_tokens=False
    ).input_ids
    tokens = torch.tensor([question] * count, device=aligner.device)
    first = question.index(aligner.image_id)
    at = captions.held[:count]
    embedded = aligner.model.get_input_embeddings()(tokens)
    embedded[:, first : first + TOKENS] = aligner.projector(states[0, at].float()).to(aligner.dtype)
    said: list[Tensor] = []
    for _ in range(12):
        hidden = aligner.language(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, -1]
        word = (hidden @ aligner.head.T).argmax(-1)
        said.append(word)
        embedded = torch.cat([embedded, aligner.model.get_input_embeddings()(word)[:, None]], 1)
    for picture, row in zip(at, torch.stack(said, 1).tolist(), strict=True):
        text = captions.processor.tokenizer.decode(row).split("<|im_end|>")[0]
        print(f"  {captions.texts[picture]}  ->  {text}")


def positive(text: str) -> int:
    """An option's whole number, at least 1."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} must be at least 1")
    return number


def parsed() -> argparse.Namespace:
    """The command line's options. Raises FcitError for a device that cannot be used."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "base", help="base.py's folder")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="data.py's folder")
    parser.add_argument("--out", type=Path, default=ROOT / "base-aligned", help="folder to write")
    parser.add_argument("--file", type=Path, help="small file to write (default: OUT.safetensors)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto")
    parser.add_argument("--steps", type=positive, default=1500)
    parser.add_argument("--batch", type=positive, default=32)
    parser.add_argument("--rank", type=positive, default=8, help="of the LoRA factors")
    parser.add_argument("--lr", type=float, default=1e-3, help="of the LoRA factors")
    parser.add_argument("--projector-lr", type=float, default=1e-3)
    parser.add_argument(
        "--views", type=positive, default=4, help="per picture; all but one are varied"
    )
    parser.add_argument("--choices", type=float, default=0.4, help="share of choice questions")
    parser.add_argument("--limit", type=int, default=0, help="captions (0: all)")
    parser.add_argument("--minutes", type=float, default=0.0, help="of training, at most (0: any)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.dtype == "auto":  # convolutions in bfloat16 are slow on CPUs
        options.dtype = "bfloat16" if options.device.startswith("cuda") else "float32"
    choose(options.device, options.dtype, "--device")
    return options


def main() -> None:
    """Read the options, align, and write the small file and the aligned base."""
    options = parsed()
    check_new_folder(options.out)
    if not (options.base / "config.json").exists():
        raise FcitError(f"{options.base}: no base; make it with base.py")
    settings = Settings(
        options.steps,
        options.batch,
        options.rank,
        options.lr,
        options.projector_lr,
        options.views,
        options.choices,
        options.seed,
    )
    processor = AutoProcessor.from_pretrained(options.base, backend="pil")
    model: Any = AutoModelForImageTextToText.from_pretrained(
        options.base,
        dtype=getattr(torch, options.dtype),
        attn_implementation={"": "eager", "text_config": "sdpa"},
    )
    model = model.eval().to(options.device)
    captions = Captions(
        options.data / "align.json", processor, options.limit or sys.maxsize, options.seed
    )
    states = features(model, captions, settings.views, settings.seed)
    aligner = Aligner(model, settings.rank, settings.seed)
    checkpoint = options.out.with_name(f"{options.out.name}-checkpoint.safetensors")
    card = align(aligner, captions, states, settings, checkpoint, options.minutes)
    show(aligner, captions, states, min(16, len(captions.held)))
    file = options.file or options.out.with_name(f"{options.out.name}.safetensors")
    store(file, aligner.factors.weights(), aligner.projector, card)
    apply(file, options.base, options.out)
    checkpoint.unlink(missing_ok=True)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB; {options.out}: {json.dumps(card)}")


if __name__ == "__main__":
    try:
        main()
    except (FcitError, OSError) as error:
        print(f"align.py: {error}", file=sys.stderr)
        sys.exit(2)
