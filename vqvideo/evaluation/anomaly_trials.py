"""Trials of anomaly detectors: normal episodes to learn from, others in which something goes wrong at a known step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vqvideo.errors import InputError
from vqvideo.evaluation.anomaly_scores import Evidence, Score, gathered, scores_for
from vqvideo.evaluation.detection import Detection, detection
from vqvideo.evaluation.made_anomalies import Anomaly, Case, Film, Severity
from vqvideo.models.imagination import Imaginer
from vqvideo.models.pixels import channels_first
from vqvideo.models.surprise import Watch
from vqvideo.models.tokenizer.features import Lite0Features

_LATEST = 40
"""Frames up to which an onset waits at most: to be played again, an episode is played up to there for each fault."""


@dataclass(frozen=True, eq=False)
class Trial:
    """How well one anomaly is found."""

    family: str
    name: str
    severity: Severity
    episodes: int
    """In which it could be made."""
    found: dict[str, Detection]
    """By score."""

    @property
    def title(self) -> str:
        return f"{self.name} {self.severity if isinstance(self.severity, str) else f'{self.severity:g}'}"

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        facts = {"family": self.family, "name": self.name, "severity": str(self.severity), "episodes": self.episodes}
        return {**facts, "scores": {score: found._asdict() for score, found in self.found.items()}}


class Trials:
    """Detectors that know what is normal, and episodes of which it is known where something goes wrong.

    Args:
        world: whose surprise is measured.
        normal: episodes to learn from.
        tested: others.
        before: latent steps that are watched before the onset.
        after: latent steps from it on.
        rate: share of false alarms a step that is asked for.
        seed: of onsets and of what anomalies draw.
        net: for the nearest neighbour; None for none.

    Raises:
        InputError: too few or too short episodes.
    """

    def __init__(
        self,
        world: Imaginer,
        normal: Sequence[Film],
        tested: Sequence[Film],
        *,
        before: int,
        after: int,
        rate: float,
        seed: int = 0,
        net: Lite0Features | None = None,
    ) -> None:
        self.world, self.net, self.stride = world, net, world.stride
        self.before, self.after = before, after
        self.cases = self._cases(tested, seed)
        known = [self._whole(film) for film in normal]
        self.scores: list[Score] = scores_for(known[0])
        self.thresholds = {score.name: score.fit(known, rate) for score in self.scores}
        of_tested = [self._whole(film) for film in tested]
        self.normal = {score.name: [score.of(evidence) for evidence in of_tested] for score in self.scores}
        """By score: those of each tested episode as it was, (n,) each."""
        windows = np.stack([c.film.frames[c.onset - self.stride * before : c.onset + 1] for c in self.cases])
        acting = np.stack([c.film.actions[c.onset - self.stride * before : c.onset] for c in self.cases])
        self._watch = self._watching(windows)
        self._past = gathered(self._watch, windows, world.checked_actions(acting), net)

    def run(self, anomaly: Anomaly) -> Trial | None:
        """Makes an anomaly in every episode that is long enough for it, and looks for it; None if none is."""
        made = [anomaly.applied(case) for case in self.cases]
        places = [place for place, film in enumerate(made) if film is not None]
        if len(places) < 2:
            return None
        films = [film for film in made if film is not None]
        evidence = self._after(films, places)
        steps = self.after if anomaly.lasting else 1
        found = {}
        for score in self.scores:
            streams = [self._past[place].followed_by(later) for place, later in zip(places, evidence, strict=True)]
            later = [score.of(stream)[self.before :][:steps] for stream in streams]
            normal = [self.normal[score.name][place] for place in places]
            found[score.name] = detection(later, normal, self.thresholds[score.name])
        return Trial(anomaly.kind, anomaly.name, anomaly.severity, len(places), found)

    def alarms(self) -> dict[str, float]:
        """By score: false alarms per 1,000 steps of the tested episodes as they were, at the threshold."""
        return {
            name: 1000 * float((np.concatenate(scores) > self.thresholds[name]).mean())
            for name, scores in self.normal.items()
        }

    @property
    def steps(self) -> int:
        """Of the tested episodes as they were."""
        return sum(map(len, next(iter(self.normal.values()))))

    def _cases(self, films: Sequence[Film], seed: int) -> list[Case]:
        """One of each episode, the onset somewhere where there is enough before and after it."""
        count, rng = self.stride * self.after, np.random.default_rng(seed)
        first = self.stride * self.before
        cases = []
        for number, film in enumerate(films):
            # Frames are dropped up to two of three: their anomaly needs as many more.
            last = max(first, min(len(film.frames) - 1 - 3 * count, first + _LATEST))
            if last + count >= len(film.frames):
                raise InputError(
                    f"an episode of {len(film.frames)} frames, expected at least {first + count + 1} for {self.before} "
                    f"latent steps before and {self.after} after the onset: --before, --after"
                )
            onset = int(rng.integers(first, last + 1))
            other = films[(number + 1) % len(films)]
            cases.append(Case(number, film, onset, count, other, self.world.action_space, seed))
        if len(cases) < 2:
            raise InputError(f"{len(cases)} episodes to test with, expected at least 2")
        return cases

    def _watching(self, frames: NDArray[np.uint8]) -> Watch:
        """Of streams (b, 1 + n, h, w, 3) from their first frame on."""
        return Watch(self.world.vqvae, self.world.prior, channels_first(torch.from_numpy(frames[:, :1])))

    def _whole(self, film: Film) -> Evidence:
        """What an episode shows, as it is."""
        steps = (len(film.frames) - 1) // self.stride
        frames = film.frames[None, : 1 + self.stride * steps]
        actions = self.world.checked_actions(film.actions[None, : self.stride * steps])
        return gathered(self._watching(frames), frames, actions, self.net)[0]

    def _after(self, films: Sequence[Film], places: Sequence[int]) -> list[Evidence]:
        """What streams show that go on as `films` do, those of the cases `places`."""
        watch = self._watch.rows(torch.tensor(places, device=self.world.device))
        last = np.stack([self.cases[place].at([0]) for place in places])
        frames = np.concatenate([last, np.stack([film.frames for film in films])], axis=1)
        actions = self.world.checked_actions(np.stack([film.actions for film in films]))
        return gathered(watch, frames, actions, self.net)
