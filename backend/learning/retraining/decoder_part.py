"""The mask decoder's part of a project's training: how it learns, from what, and whether the project gains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from backend.pipeline.segmentation.sam import SamSegmenter
from backend.training.decoder.samples import EmbedView, decoder_samples, held_out_split, sees_windows
from backend.training.decoder.training import DecoderOptions, TunedDecoder, tune_decoder
from backend.training.run import TrainingRun
from dataset_tools.labelled import LabelledImage, spread

__all__ = ["project_decoder", "tune_for_project"]

_REPLAY_OBJECTS, _REPLAY_VIEWS = 2, 1
"""Of each replay image so many objects remind the decoder, each in so many augmented windows beside the plain ones:
embedding windows is most of what a training costs."""


def project_decoder(steps: int) -> DecoderOptions:
    """How the mask decoder learns from a project: in large steps of one prompt each. Half of the weights before stays
    in the mean, so that less is forgotten; all of them stay where the project's held-out objects do not gain
    (docs/active_learning.md).
    """
    return DecoderOptions(
        steps=steps,
        validate_every=max(1, steps // 4),
        rounds=(1.0,),
        learning_rate=1e-3,
        average_with_init=0.5,
        least_gain=0.01,
    )


def tune_for_project(
    segmenter: SamSegmenter,
    training: Sequence[LabelledImage],
    replay: Sequence[LabelledImage],
    options: DecoderOptions,
    *,
    seed: int = 0,
    embed: EmbedView | None = None,
    embedded: Callable[[LabelledImage], None] = lambda _: None,
    progress: Callable[[float, str], None] = lambda *_: None,
    folder: Path | None = None,
) -> TunedDecoder:
    """A decoder tuned on a project's objects and judged by those of held-out images of the project alone: what is drawn
    or known often gains where the project does not.

    Args:
        segmenter: stays as it is.
        training: the project's labels; every object is learnt from.
        replay: labels of other images, of which a few objects each remind.
        options: how.
        seed: of the views of objects, as of ``decoder_samples``.
        embed: as of ``decoder_samples``.
        embedded: called with each image whose windows are embedded.
        progress: as of ``tune_decoder``.
        folder: of the run; one that was interrupted goes on. None keeps nothing.
    """
    sample = partial(decoder_samples, segmenter, seed=seed, embed=embed, progress=embedded)
    own = sample(training)
    few = [
        replace(image, objects=tuple(spread(image.objects, _REPLAY_OBJECTS)), expressions=())
        for image in replay
        if image.objects
    ]
    if sees_windows(segmenter):
        reminders = sample(few, views=_REPLAY_VIEWS)
    else:  # decoders of other sizes: the steps were chosen for the compact one
        reminders = sample(few)
        options = replace(options, learning_rate=min(options.learning_rate, DecoderOptions.learning_rate))
    own, held_out = held_out_split(own, options.held_out_share, options.seed)
    run = None if folder is None else TrainingRun(folder, options.plain(), criterion="score", resume=True, curves=False)
    return tune_decoder(segmenter, [*own, *reminders], held_out, options, progress=progress, run=run)
