"""The page of the studio, built with Gradio: what a person sees and clicks. What it does is in the files beside it."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any

import numpy as np
from PIL import Image

from raigen.amplification.recipes import SavedRecipe, Turned
from raigen.errors import RaigenError
from raigen.judging.by_hand import list_by_hand
from raigen.runs import pixels
from raigen.studio.gallery import Gallery, Kept, save_recipe
from raigen.studio.neurons import ALL, reasons, strongest_images, unlisted
from raigen.studio.session import MOST, Pair, Studio, summary

TABS = ("Steer", "Gallery", "Neurons")
SPARE = 12  # sliders for attributes that are listed by hand while the page is open
FAR = 4.0  # the end of a slider
N_ROWS = 200  # neurons in the table
STYLE = """
.pairs img { image-rendering: auto; object-fit: contain !important; }
.pairs .caption-label { white-space: normal; font-size: 0.75rem; }
footer { display: none !important; }
"""


def build(gr: Any, studio: Studio, tabs: Sequence[str] = TABS) -> Any:
    """The page as Blocks of Gradio (`gr`), not served yet."""
    capture = studio.run.config.capture
    with gr.Blocks(title="raigen studio", analytics_enabled=False, fill_width=True, delete_cache=(3600, 3600)) as page:
        gr.Markdown(f"# raigen studio\n{_plain(f'“{capture.prompt}” with {capture.model}')}")
        with gr.Tab("Steer"):
            steer = SteerTab(gr, studio, keeps="Gallery" in tabs)
        if "Gallery" in tabs:
            with gr.Tab("Gallery") as tab:
                GalleryTab(gr, studio, steer, tab)
        if "Neurons" in tabs:
            with gr.Tab("Neurons"):
                NeuronsTab(gr, studio, steer)
    return page


class SteerTab:
    """Sliders, a brush, steps and seeds on the left; twins as they come on the right."""

    def __init__(self, gr: Any, studio: Studio, keeps: bool):
        self._gr, self._studio, self._gallery = gr, studio, Gallery(studio.run) if keeps else None
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._draw_sliders()
                self._draw_where_and_when()
            with gr.Column(scale=3, min_width=320):
                self._draw_images()
        self._connect()

    def _draw_sliders(self) -> None:
        gr = self._gr
        self.method = gr.Radio(["contrast", "steer", "set"], value="contrast", label="Method", elem_id="method")
        n = len(self._studio.listed) + SPARE
        self.sliders = [gr.Slider(-FAR, FAR, 0, step=0.1, elem_id=f"slider-{place}", **self.slot(place))
                        for place in range(n)]  # fmt: skip
        with gr.Accordion("A neuron that is not listed", open=False), gr.Row():
            self.other = gr.Number(value=None, precision=0, minimum=0, label="Neuron", elem_id="other")
            self.other_strength = gr.Slider(-FAR, FAR, 0, step=0.1, label="Strength")

    def slot(self, place: int) -> dict[str, Any]:
        """The label of a slider; one without an attribute is not visible."""
        listed = self._studio.listed
        if place >= len(listed):
            return {"label": "", "visible": False}
        return {"label": f"{listed[place].rank}. {listed[place].title} ({listed[place].source})", "visible": True}

    def _draw_where_and_when(self) -> None:
        gr, last = self._gr, self._studio.n_steps - 1
        with gr.Accordion("When: denoising steps", open=False):
            self.steps_from = gr.Slider(0, last, 0, step=1, label="First step")
            self.steps_to = gr.Slider(0, last, last, step=1, label="Last step")
            self.every_branch = gr.Checkbox(False, label="Every branch of the guidance")
        with gr.Accordion("Where: a brush", open=False):
            gr.Markdown("Paint where to steer. Nothing painted means everywhere.")
            self.background = gr.Button("Show the first unsteered image here", size="sm")
            self.brush = gr.ImageEditor(
                type="pil", image_mode="RGBA", label="Where", sources=(), transforms=(), layers=False, elem_id="brush",
                brush=gr.Brush(default_size=40, colors=["#ff5a1f"], color_mode="fixed"), format="png",
            )  # fmt: skip

    def _draw_images(self) -> None:
        gr = self._gr
        with gr.Row():
            self.first = gr.Number(0, precision=0, minimum=0, label="First image", elem_id="first",
                                   info=f"image 0 has seed {self._studio.seed_of(0)}")  # fmt: skip
            self.count = gr.Number(4, precision=0, minimum=1, maximum=MOST, label="Images", elem_id="count",
                                   info="consecutive seeds")  # fmt: skip
        with gr.Row():
            self.make = gr.Button("Make images", variant="primary", elem_id="make")
            self.stop = gr.Button("Stop", elem_id="stop")
        self.told = gr.Markdown("Move a slider, then make images.", elem_id="told")
        self.images = gr.Gallery(label="Unsteered, and steered with the same seed", columns=4, height=640,
                                 object_fit="contain", format="png", elem_classes="pairs", elem_id="pairs")  # fmt: skip
        with gr.Row():
            self.name = gr.Textbox(label="Name of the recipe", max_lines=1, elem_id="recipe-name")
            self.save = gr.Button("Save as recipe", elem_id="save")
        self.file = gr.File(label="Recipe", visible=False, elem_id="recipe-file")

    def _connect(self) -> None:
        gr, hidden = self._gr, {"api_visibility": "private"}
        wish = [self.method, self.steps_from, self.steps_to, self.every_branch, self.brush, self.other,
                self.other_strength, *self.sliders]  # fmt: skip
        made = self.make.click(told(gr, self._make), [self.first, self.count, *wish], [self.images, self.told],
                               concurrency_id="model", **hidden)  # fmt: skip
        self.stop.click(None, cancels=[made], **hidden)
        self.save.click(told(gr, self._save), [self.name, *wish], [self.file, self.told], **hidden)
        self.background.click(told(gr, self._background), [self.first], [self.brush], concurrency_id="model", **hidden)

    def _wish(
        self, method: str, steps_from: float, steps_to: float, every_branch: bool, brush: Any, other: float | None,
        other_strength: float, *sliders: float,
    ) -> SavedRecipe:  # fmt: skip
        """The recipe that the page shows."""
        turned = [Turned(one.neuron, far) for one, far in zip(self._studio.listed, sliders, strict=False)]
        if other is not None:
            turned.append(Turned(int(other), other_strength))
        steps = (int(steps_from), int(steps_to))
        everything = (0, self._studio.n_steps - 1)
        return self._studio.recipe(turned, method=method, steps=None if steps == everything else steps,
                                   every_branch=bool(every_branch), mask=painted(brush))  # fmt: skip

    def _make(self, first: float, count: float, *wish: Any) -> Iterator[tuple[list[Any], str]]:
        recipe = self._wish(*wish)
        indices = range(int(first or 0), int(first or 0) + int(count or 0))
        entry, images = Kept.begun(recipe), []
        yield [], f"Making the first of {len(indices)} pairs."
        for pair in self._studio.pairs(recipe, indices):
            entry = Kept(entry.name, entry.made, recipe, (*entry.pairs, pair))
            images += captioned(self._studio, pair)
            if self._gallery:
                self._gallery.keep(entry)
            yield images, sentences(self._studio, entry.pairs, len(indices))

    def _save(self, name: str, *wish: Any) -> tuple[Any, str]:
        path = save_recipe(self._studio.run, self._wish(*wish), name or "")
        command = f"raigen amplify {self._studio.run.dir} --recipe {path}"
        return self._gr.update(value=str(path), visible=True), f"Measure it on many seeds:\n```\n{command}\n```"

    def _background(self, first: float) -> Any:
        sample = self._studio.unsteered(int(first or 0))
        image = pixels.sized(self._studio.run.read_image(sample, "amplify"))
        return {"background": image, "layers": [], "composite": image}


class GalleryTab:
    """What was made before: look at it, take its sliders again, delete it."""

    def __init__(self, gr: Any, studio: Studio, steer: SteerTab, tab: Any):
        self._gr, self._studio, self._gallery = gr, studio, Gallery(studio.run)
        self.chosen = gr.Dropdown(label="Made before", choices=self._choices(), value=None, elem_id="kept")
        with gr.Row():
            again = gr.Button("Take these settings", elem_id="again")
            drop = gr.Button("Delete from the gallery")
        text = gr.Markdown()
        images = gr.Gallery(columns=4, height=640, object_fit="contain", format="png", elem_classes="pairs",
                            label="Unsteered, and steered with the same seed")  # fmt: skip
        hidden = {"api_visibility": "private"}
        fields = [steer.method, steer.steps_from, steer.steps_to, steer.every_branch, steer.first, steer.count,
                  *steer.sliders]  # fmt: skip
        tab.select(told(gr, lambda: gr.update(choices=self._choices())), None, [self.chosen], **hidden)
        self.chosen.input(told(gr, self._show), [self.chosen], [images, text], **hidden)
        again.click(told(gr, self._again), [self.chosen], fields, **hidden)
        drop.click(told(gr, self._drop), [self.chosen], [self.chosen, images, text], **hidden)

    def _choices(self) -> list[tuple[str, str]]:
        return [(entry.title, entry.name) for entry in self._gallery.entries()]

    def _entry(self, name: str | None) -> Kept:
        found = [entry for entry in self._gallery.entries() if entry.name == name]
        if not found:
            raise RaigenError("gallery: expected one of its entries; choose one")
        return found[0]

    def _show(self, name: str) -> tuple[list[Any], str]:
        entry = self._entry(name)
        images = [image for pair in entry.pairs for image in captioned(self._studio, pair)]
        return images, sentences(self._studio, entry.pairs, len(entry.pairs))

    def _again(self, name: str | None) -> list[Any]:
        entry = self._entry(name)
        recipe, last = entry.recipe, self._studio.n_steps - 1
        strengths = {one.neuron: one.strength for one in recipe.turned}
        listed = [strengths.get(one.neuron, 0.0) for one in self._studio.listed]
        sliders = [*listed, *[0.0] * (len(self._studio.listed) + SPARE)][: len(self._studio.listed) + SPARE]
        first, to = recipe.steps or (0, last)
        numbers = [pair.number for pair in entry.pairs]
        return [recipe.method, first, to, recipe.every_branch, min(numbers, default=0), max(len(numbers), 1), *sliders]

    def _drop(self, name: str | None) -> tuple[Any, list[Any], str]:
        self._gallery.drop(self._entry(name).name)
        return self._gr.update(choices=self._choices(), value=None), [], ""


class NeuronsTab:
    """The neurons that are not listed, their strongest images, and a name by hand."""

    def __init__(self, gr: Any, studio: Studio, steer: SteerTab):
        self._gr, self._studio, self._steer = gr, studio, steer
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                why = gr.Dropdown([ALL, *reasons(studio.run)], value=ALL, label="Why it is not listed")
                table = gr.Dataframe(self._rows(ALL), headers=["neuron", "score", "frequency", "distinct", "why"],
                                     datatype=["number", "number", "number", "number", "str"], interactive=False,
                                     max_height=420, type="array", elem_id="neurons")  # fmt: skip
            with gr.Column(scale=3, min_width=320):
                number = gr.Number(None, precision=0, minimum=0, label="Neuron", elem_id="neuron")
                images = gr.Gallery(label="Images in which it is strongest", columns=5, height=420, format="png",
                                    object_fit="contain", elem_classes="pairs", elem_id="strongest")  # fmt: skip
                with gr.Row():
                    name = gr.Textbox(label="What these images share", max_lines=1, elem_id="hand-name")
                    by = gr.Textbox(label="Your name", max_lines=1, elem_id="hand-by")
                add = gr.Button("List it under this name", variant="primary", elem_id="list")
                text = gr.Markdown(elem_id="hand-told")
        hidden = {"api_visibility": "private"}
        why.input(told(gr, self._rows), [why], [table], **hidden)
        table.select(self._selected(gr), [table], [number], **hidden)
        number.change(told(gr, self._show), [number], [images], **hidden)
        add.click(told(gr, self._list), [number, name, by], [text, *steer.sliders], concurrency_id="model", **hidden)

    def _rows(self, why: str) -> list[list[Any]]:
        found = unlisted(self._studio.run, why)[:N_ROWS]
        return [[one.number, *map(_rounded, one[1:4]), one.why] for one in found]

    def _selected(self, gr: Any) -> Callable[..., Any]:
        def selected(rows: list[list[Any]], event: Any) -> Any:
            return int(rows[event.index[0]][0])

        selected.__annotations__["event"] = gr.SelectData  # how Gradio finds out that the event is wanted
        return selected

    def _show(self, number: float | None) -> list[Any]:
        if number is None:
            return []
        run, samples = self._studio.run, {sample.file: sample for sample in self._studio.run.samples()}
        return [(pixels.sized(run.read_image(samples[file])), f"seed {seed}")
                for file, seed in strongest_images(run, int(number))]  # fmt: skip

    def _list(self, number: float | None, name: str, by: str) -> list[Any]:
        if number is None:
            raise RaigenError("neuron: expected the number of a neuron; choose one in the table")
        run = self._studio.run
        with run.locked():
            added = list_by_hand(run, int(number), name, by)
        text = (f"Listed at rank {added.rank}; its slider is in the tab Steer. To check its name and rate:\n"
                f"```\nraigen evaluate {run.dir}\nraigen report {run.dir}\n```")  # fmt: skip
        slots = [self._gr.update(**self._steer.slot(place)) for place in range(len(self._steer.sliders))]
        return [text, *slots]


def told(gr: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function for Gradio: what goes wrong is shown to the person who clicked."""

    @wraps(function)
    def called(*values: Any) -> Any:
        try:
            return function(*values)
        except RaigenError as error:
            raise gr.Error(_plain(str(error)), print_exception=False) from error

    @wraps(function)
    def iterated(*values: Any) -> Any:
        try:
            yield from function(*values)
        except RaigenError as error:
            raise gr.Error(_plain(str(error)), print_exception=False) from error

    return iterated if isgeneratorfunction(function) else called


def captioned(studio: Studio, pair: Pair) -> list[tuple[Image.Image, str]]:
    """The two images of a pair with what a person should know of each."""
    before = [f"{one.label}: {_yes(one.before)}" for one in pair.shown]
    after = [f"{one.label}: {_yes(one.after)}" for one in pair.shown]
    texts = (" · ".join([f"seed {pair.seed}", *before]), " · ".join([f"fidelity {pair.fidelity:.2f}", *after]))
    return [(pixels.sized(Image.open(studio.run.dir / file).convert("RGB")), text)
            for file, text in zip((pair.unsteered, pair.steered), texts, strict=True)]  # fmt: skip


def sentences(studio: Studio, pairs: Sequence[Pair], wanted: int) -> str:
    """What the pairs so far show, in Markdown."""
    lines = [f"{len(pairs)} of {wanted} pairs, mean fidelity {np.mean([pair.fidelity for pair in pairs]):.2f}"]
    lines += [f"- {_plain(label)}: {before} of {n} unsteered, **{after} of {n}** steered ({_plain(studio.judge)})"
              if n else f"- {_plain(label)}: unscored" for label, before, after, n in summary(pairs)]  # fmt: skip
    return "\n".join(lines)


def painted(brush: Any) -> bytes | None:
    """What was painted, as a PNG file that is white there; None if nothing was."""
    layers = [layer for layer in (brush or {}).get("layers") or [] if layer is not None]
    if not layers:
        return None
    alpha = np.max([np.asarray(layer.convert("RGBA"))[..., 3] for layer in layers], axis=0)
    if not alpha.any():
        return None
    buffer = io.BytesIO()
    Image.fromarray(alpha).save(buffer, "PNG")
    return buffer.getvalue()


def _plain(text: str) -> str:
    """A text in which Markdown and HTML find nothing to read."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]()#+!|<>~$" else letter for letter in text)


def _yes(shown: bool | None) -> str:
    return "unscored" if shown is None else "yes" if shown else "no"


def _rounded(value: Any) -> float | None:
    return None if value is None else round(value, 4)
