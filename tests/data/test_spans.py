"""Spans of frames: what an episode is, whatever the lengths and the ends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vqvideo.data.spans import Span, spans


def test_a_recording_is_cut_at_the_longest_episode_and_where_it_ended() -> None:
    assert list(spans(0, 12, 1, 4)) == [Span(0, 4, False), Span(5, 9, False), Span(10, 11, False)]
    assert list(spans(0, 12, 1, 4, [2, 11])) == [Span(0, 2, True), Span(3, 7, False), Span(8, 11, True)]
    assert list(spans(0, 12, 3, 2)) == [Span(0, 6, False)], "of 9, 10, 11 only one is kept"
    assert list(spans(0, 12, 3, 9, [11])) == [Span(0, 11, True)], "an end counts although it lies between"
    assert list(spans(10, 11, 1, 4)) == []


@given(
    frames=st.integers(0, 60),
    begin=st.integers(0, 5),
    every=st.integers(1, 5),
    steps=st.integers(1, 9),
    ends=st.sets(st.integers(1, 59)),
)
def test_spans_are_episodes(frames: int, begin: int, every: int, steps: int, ends: set[int]) -> None:
    ordered = sorted(end for end in ends if end < frames)
    found = list(spans(begin, frames, every, steps, ordered))
    after = begin
    for span in found:
        assert after <= span.first < span.last < frames
        assert -(-(span.last - span.first) // every) <= steps
        assert not any(span.first < end < span.last for end in ordered)
        assert span.terminated == (span.last in ordered)
        assert span.terminated or (span.last - span.first) % every == 0
        after = span.last + (1 if span.terminated else every)
    # What is left out is no episode: single frames that are kept, and those between.
    covered = sum(span.frames for span in found)
    singles = len(ordered) + 1
    assert frames - begin - covered <= singles * every + len(found) * (every - 1)


@given(frames=st.integers(2, 60), steps=st.integers(1, 9), ends=st.sets(st.integers(1, 59)))
def test_from_any_span_on_the_same_ones_follow(frames: int, steps: int, ends: set[int]) -> None:
    ordered = sorted(ends)
    found = list(spans(0, frames, 2, steps, ordered))
    for number, span in enumerate(found):
        assert list(spans(span.first, frames, 2, steps, ordered)) == found[number:]
