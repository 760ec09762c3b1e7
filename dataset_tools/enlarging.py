"""Samples enlarged by proposed expressions, marked as generated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from dataset_tools import image_files
from dataset_tools.errors import PslgError
from dataset_tools.expressions.rule_made.proposals import propose
from dataset_tools.records import Provenance, Record, Sample, Target, local_path


def enlarge(
    samples: Iterable[Sample],
    *,
    keep: bool = True,
    per_object: int = 3,
    seed: int = 0,
    left_out: Callable[[str, str], object] = lambda _name, _why: None,
) -> Iterator[Sample]:
    """Every sample with proposals for its objects.

    Args:
        samples: every object is proposed for once, whoever names it; its category must be a canonical one.
        keep: the sample's own records stay; False gives the proposals alone.
        per_object: most expressions for one object.
        seed: of the choice of wordings.
        left_out: called with file name and reason where the image cannot be read; colours are then not used.
    """
    for sample in samples:
        objects: dict[tuple[str, str], Target] = {}
        for record in sample.records:
            for target in record.targets:
                objects.setdefault((record.category, target.counts), target)
        splits = {record.split for record in sample.records}
        split = splits.pop() if len(splits) == 1 else None
        targets, categories = list(objects.values()), [category for category, _ in objects]
        masks = sample.masks(Record("", "", tuple(targets)))
        try:
            image = image_files.read(local_path(sample.image))
        except (PslgError, OSError) as error:
            left_out(sample.image.file_name, f"proposals without colours: {error}")
            image = None
        own = {record.expression.lower() for record in sample.records} if keep else set()
        made = tuple(
            Record(
                proposal.expression,
                proposal.category,
                tuple(targets[index] for index in proposal.targets),
                split,
                proposal.kind,
                Provenance(source="proposal", generated=True),
            )
            for proposal in propose(masks, categories, image, seed=seed, per_object=per_object)
            if proposal.expression.lower() not in own
        )
        records = (*sample.records, *made) if keep else made
        if records:
            yield replace(sample, records=records)
