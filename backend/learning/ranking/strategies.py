"""Which task to label next: an order of the tasks that have no annotation yet, by one of several strategies.

Pure numpy: candidates in, indices out. ``pslg rank`` gathers candidates from Label Studio, ``pslg simulate`` from a
labelled folder; both order them here, so that what the simulation proves is what the project gets.

- ``random``: the baseline every strategy has to beat. Plain chance, duplicates and all.
- ``uncertainty``: lowest calibrated score first (``score_calibration``). A task without an answer teaches most if the
  object is there and nothing if it is not, and nobody knows which before looking: such tasks take every second place
  at most, so that a project full of absent objects does not hide the masks that are wrong.
- ``disagreement``: largest first; what is compared is said in ``disagreement``.
- ``diversity``: k-centre greedy (Sener & Savarese 2018): each pick is the one farthest from all that is labelled or
  picked already. Exact for the first ``EXACT_CENTRES`` picks, the rest follow by their distance to these; time is
  picks x candidates and memory candidates, never candidates x candidates.
- ``balance``: the category with the fewest labels and picks so far comes next, its least certain task first.
- ``mix``: uncertainty, diversity, balance and disagreement take turns.

Everywhere but in ``random`` near-duplicates step back: the second task of an image (or of images that look the same)
counts half of what its place gives it, the third a quarter, and so on; labelled ones count as placed before.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

STRATEGIES = ("random", "uncertainty", "disagreement", "diversity", "balance", "mix")

NEAR = 0.25
"""Distance of two ``directions`` up to which their images count as near-duplicates (cosine 0.97).

With ``image_features``, recompressed and resized copies are at most 0.05 apart, copies that lack a twentieth at each
side 0.1 to 0.4; of 120 images of NWPU VHR-10 one in a hundred is this near to another.
"""
EXACT_CENTRES = 2000
"""Picks of ``diversity`` that are exact; nobody labels more before asking for a new order."""
_BLOCK = 1024
"""Rows of one distance computation: with 50,000 candidates a block takes 200 MB."""

Features = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A task that could be labelled next, or one that is labelled already.

    Attributes:
        key: names the task; only the caller reads it.
        score: calibrated probability in [0, 1] that the pre-label is accepted unchanged; 0.0 or None: no answer.
        disagreement: in [0, 1], 0 where nothing disagrees or nothing is known.
        category: canonical name or label, None if not known.
        features: float32[D]: what the image looks like to some encoder (``image_features``), of any length and offset:
            ``directions`` makes them comparable. D is the same for all, 0 is allowed.
        image_key: candidates of one image, or of images known to be near-duplicates, share it.
    """

    key: Hashable
    score: float | None
    disagreement: float
    category: str | None
    features: Features
    image_key: str


def order(
    candidates: Sequence[Candidate], strategy: str, labelled: Sequence[Candidate] = (), seed: int = 0
) -> list[int]:
    """All indices into ``candidates``, the one to label first in front.

    Args:
        candidates: tasks without annotation.
        strategy: one of ``STRATEGIES``.
        labelled: what is labelled already; its scores and disagreements are not read.
        seed: decides ties and ``random``; the same arguments always give the same order.

    Raises:
        ValueError: unknown strategy, a score or disagreement outside [0, 1], or features of different lengths or
            with values that are not finite.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; choose one of {', '.join(STRATEGIES)}")
    _check(candidates)
    if not candidates:
        return []
    ties = np.random.default_rng(seed).permutation(len(candidates))
    if strategy == "random":
        return [int(index) for index in ties]
    features, known = _feature_table(candidates, labelled)
    queue = _Queue(candidates, labelled, features, known, ties)
    orders: dict[str, Callable[[], Indices]] = {
        "uncertainty": queue.uncertainty,
        "disagreement": queue.disagreement,
        "diversity": queue.diversity,
        "balance": queue.balance,
        "mix": queue.mix,
    }
    return [int(index) for index in orders[strategy]()]


def disagreement(*similarities: float | None) -> float:
    """One figure in [0, 1] from IoUs of masks or boxes that should agree; 0 if none is known.

    The pairs are the mask before and after boundary optimization (``boundary_agreement``), the masks of two model
    versions, and the box of coarse localization with the box around the mask. The worst pair counts: a mean would
    hide one bad pair behind two good ones. None stands for a pair that was not compared.
    """
    known = [similarity for similarity in similarities if similarity is not None]
    return float(min(max(1.0 - min(known), 0.0), 1.0)) if known else 0.0


def directions(vectors: Features) -> Features:
    """Rows float32[N, D] as directions from their common mean, of length 1 (0 for the mean itself).

    All images share most of what an encoder says; without their mean every two of them would count as near-duplicates.
    """
    centred = vectors - vectors.mean(axis=0, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    result: Features = (centred / np.maximum(lengths, 1e-6)).astype(np.float32)
    return result


def farthest_first(features: Features, known: Features, first: int, picks: int) -> tuple[Indices, Features]:
    """k-centre greedy.

    Args:
        features: float32[N, D].
        known: float32[M, D]: centres from the start.
        first: the first pick where there is no known centre.
        picks: at most this many centres; N if larger.

    Returns:
        Indices int64[K] of the picks in their order, and float32[N], the squared distance of every row to the nearest
        centre (0 for the picks).
    """
    squared = (features**2).sum(axis=1)
    nearest = np.full(len(features), np.inf, np.float32)
    for start in range(0, len(known), _BLOCK):
        block = known[start : start + _BLOCK]
        apart = squared[:, None] + (block**2).sum(axis=1)[None] - 2.0 * (features @ block.T)
        np.minimum(nearest, apart.min(axis=1), out=nearest)
    np.maximum(nearest, 0.0, out=nearest)
    taken = np.zeros(len(features), bool)
    chosen: list[int] = []
    for _ in range(min(picks, len(features))):
        # Rounding leaves a centre's copies a hair away from it: the mark keeps every pick unique.
        pick = first if not chosen and not len(known) else int(np.where(taken, -1.0, nearest).argmax())
        chosen.append(pick)
        taken[pick] = True
        apart = squared + squared[pick] - 2.0 * (features @ features[pick])
        np.minimum(nearest, np.maximum(apart, 0.0), out=nearest)
        nearest[pick] = 0.0
    return np.array(chosen, np.int64), nearest


class _Queue:
    """The strategies, over one set of candidates."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        labelled: Sequence[Candidate],
        features: Features,
        known: Features,
        ties: Indices,
    ) -> None:
        self._candidates = candidates
        self._labelled = labelled
        self._features = features
        self._known = known
        self._ties = ties
        self._scores = np.array([c.score or 0.0 for c in candidates])
        self._disagreements = np.array([c.disagreement for c in candidates])

    def uncertainty(self) -> Indices:
        return self._spread(self._least_certain())

    def disagreement(self) -> Indices:
        return self._spread(self._most_disputed())

    def diversity(self) -> Indices:
        return self._spread(self._most_different())

    def balance(self) -> Indices:
        return self._fewest_labels(self._spread(self._least_certain()))

    def mix(self) -> Indices:
        certain = self._least_certain()
        turns = [certain, self._most_different(), self._fewest_labels(certain)]
        if self._disagreements.any():
            turns.append(self._most_disputed())
        return self._spread(_in_turn(turns))

    def _least_certain(self) -> Indices:
        # Equal scores: the more disputed first, then chance.
        ascending = np.lexsort((self._ties, -self._disagreements, self._scores))
        unanswered = self._scores[ascending] <= 0.0
        return _in_turn([ascending[~unanswered], ascending[unanswered]])

    def _most_disputed(self) -> Indices:
        ranked: Indices = np.lexsort((self._ties, self._scores, -self._disagreements))
        return ranked

    def _most_different(self) -> Indices:
        if not self._features.shape[1]:
            return np.argsort(self._ties)
        apart = ((self._features - self._features.mean(axis=0)) ** 2).sum(axis=1)
        typical = int(np.lexsort((self._ties, apart))[0])
        chosen, nearest = farthest_first(self._features, self._known, typical, EXACT_CENTRES)
        rest = np.setdiff1d(np.arange(len(self._features)), chosen)
        return np.concatenate([chosen, rest[np.lexsort((self._ties[rest], -nearest[rest]))]])

    def _fewest_labels(self, preferred: Indices) -> Indices:
        """Category by category in turn, the one with fewest labels first; inside a category as ``preferred``."""
        waiting: dict[str | None, list[int]] = {}
        for index in preferred[::-1]:
            waiting.setdefault(self._candidates[index].category, []).append(int(index))
        counts = dict.fromkeys(waiting, 0)
        for item in self._labelled:
            if item.category in counts:
                counts[item.category] += 1
        heap = [(count, name or "", name) for name, count in counts.items()]
        heapq.heapify(heap)
        chosen = []
        while heap:
            count, text, name = heapq.heappop(heap)
            chosen.append(waiting[name].pop())
            if waiting[name]:
                heapq.heappush(heap, (count + 1, text, name))
        return np.array(chosen, np.int64)

    def _spread(self, preferred: Indices) -> Indices:
        """``preferred`` with near-duplicates of earlier or labelled ones moved back."""
        images: dict[str, int] = {}
        numbers = [images.setdefault(c.image_key, len(images)) for c in (*self._labelled, *self._candidates)]
        count = len(self._labelled)
        sequence = np.concatenate([np.arange(count), preferred + count])
        by_image = _occurrence(np.array(numbers)[sequence])
        by_look = _occurrence(_leaders(np.concatenate([self._known, self._features])[sequence]))
        repeats = np.maximum(by_image, by_look)[count:]
        worth = np.arange(len(preferred), 0, -1) * 0.5**repeats
        spread: Indices = preferred[np.lexsort((repeats, -worth))]
        return spread


def _check(candidates: Sequence[Candidate]) -> None:
    for item in candidates:
        if item.score is not None and not 0.0 <= item.score <= 1.0:
            raise ValueError(f"candidate {item.key}: a score must be in [0, 1] or None, got {item.score}")
        if not 0.0 <= item.disagreement <= 1.0:
            raise ValueError(f"candidate {item.key}: a disagreement must be in [0, 1], got {item.disagreement}")


def _feature_table(candidates: Sequence[Candidate], labelled: Sequence[Candidate]) -> tuple[Features, Features]:
    """Features of the candidates [N, D] and of what is labelled [M, D]."""
    lengths = {c.features.shape for c in (*candidates, *labelled)}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1:
        raise ValueError(f"features must be vectors of one length, got shapes {sorted(lengths)}")
    features = np.array([c.features for c in candidates], np.float32)
    known = np.array([c.features for c in labelled], np.float32).reshape(len(labelled), features.shape[1])
    if not (np.isfinite(features).all() and np.isfinite(known).all()):
        raise ValueError("features must be finite numbers")
    vectors = directions(np.concatenate([features, known]))
    return vectors[: len(features)], vectors[len(features) :]


def _in_turn(orders: Sequence[Indices]) -> Indices:
    """One from each order in turn, skipping what is taken; an exhausted order leaves its turns to the others."""
    size = max((int(part.max()) for part in orders if len(part)), default=-1) + 1
    taken = np.zeros(size, bool)
    chosen: list[int] = []
    queues = [iter(part) for part in orders]
    while queues:
        for queue in list(queues):
            index = next((int(i) for i in queue if not taken[i]), None)
            if index is None:
                queues.remove(queue)
                continue
            taken[index] = True
            chosen.append(index)
    return np.array(chosen, np.int64)


def _occurrence(groups: npt.NDArray[np.int64]) -> Indices:
    """How often each entry's group came up before it: [4, 7, 4, 4] -> [0, 0, 1, 2]."""
    by_group = np.argsort(groups, kind="stable")
    sorted_groups = groups[by_group]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    sizes = np.diff(np.r_[starts, len(groups)])
    result = np.empty(len(groups), np.int64)
    result[by_group] = np.arange(len(groups)) - np.repeat(starts, sizes)
    return result


def _leaders(features: Features) -> Indices:
    """int64[N]: for every row the first earlier row within ``NEAR`` that has no such row itself; else the row itself.

    Leaders, not chains of neighbours: a row is near its leader, never merely near something near it.
    """
    leader = np.arange(len(features))
    if not features.shape[1]:
        return leader
    alike = 1.0 - NEAR**2 / 2.0
    table = np.empty_like(features)
    rows: list[int] = []
    for start in range(0, len(features), _BLOCK):
        block = features[start : start + _BLOCK]
        if rows:
            near = np.greater_equal(block @ table[: len(rows)].T, alike)
            found = near.any(axis=1)
            leader[start : start + len(block)][found] = np.array(rows)[near.argmax(axis=1)[found]]
        else:
            found = np.zeros(len(block), bool)
        inside = np.greater_equal(block @ block.T, alike)
        for i in np.flatnonzero(~found):
            if leader[start + i] != start + i:
                continue
            table[len(rows)] = block[i]
            rows.append(start + int(i))
            followers = np.flatnonzero(inside[i])
            followers = followers[(followers > i) & ~found[followers]]
            own = leader[start + followers] == start + followers
            leader[start + followers[own]] = start + i
    return leader
