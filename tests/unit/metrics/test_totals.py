"""Totals over tracks: bits over samples, in any order, with intervals that cover what they should."""

import math

import numpy as np
import pytest

from stereo_sashimi.metrics.totals import TrackResult, channel_labels, interval, pooled
from stereo_sashimi.spec import AudioSpec

SPEC, LABELS = AudioSpec(44100, 2, 16), ("left", "right | left")


def track(file: str, frames: int, left: float, right: float, independent: float | None = None) -> TrackResult:
    """Bits per sample of each channel; the context 8 costs one bit more."""
    nats = [left * frames * math.log(2), right * frames * math.log(2)]
    longer = [n + frames * math.log(2) for n in nats]
    apart = None if independent is None else {"channel_nats": [independent * frames * math.log(2)] * 2}
    contexts = {"carried": {"channel_nats": nats}, "8": {"channel_nats": longer}}
    return TrackResult(file, "", frames, 44100, 2, contexts, apart, [], {"flac -8": 16 * frames})


def test_totals_over_totals():
    found = pooled([track("b", 300, 4.0, 2.0), track("a", 100, 8.0, 6.0)], SPEC, LABELS)
    carried = found["contexts"]["carried"]
    assert (found["tracks"], found["frames"]) == (2, 400)
    assert carried["bits_per_sample"] == pytest.approx(4.0)
    assert carried["bpb"] == pytest.approx(2.0)
    assert carried["channels"] == pytest.approx({"left": 5.0, "right | left": 3.0})
    assert found["contexts"]["8"]["bits_per_sample"] == pytest.approx(5.0)
    assert found["lossless"]["flac -8"] == {"bits_per_sample": 8.0, "interval": [8.0, 8.0]}
    assert found["cross_channel_gain"] is None
    low, high = carried["interval"]
    assert (low, high) == pytest.approx((3.0, 7.0))


def test_the_order_of_tracks_is_nothing():
    rng = np.random.default_rng(0)
    tracks = [track(f"t{i:02}", int(n), *rng.uniform(2, 9, 3)) for i, n in enumerate(rng.integers(50, 9000, 40))]
    shuffled = [tracks[i] for i in rng.permutation(40)]
    assert pooled(tracks, SPEC, LABELS) == pooled(shuffled, SPEC, LABELS)


def test_the_gain_is_what_is_saved():
    gain = pooled([track("a", 100, 3.0, 2.0, 4.0), track("b", 100, 3.0, 3.0, 4.0)], SPEC, LABELS)["cross_channel_gain"]
    assert gain["bits_per_sample"] == pytest.approx(1.25)
    assert gain["interval"] == pytest.approx([1.0, 1.5])


def test_one_track_has_no_interval_and_a_coder_that_lacks_a_track_is_left_out():
    one, other = track("a", 100, 3.0, 2.0), track("b", 100, 3.0, 2.0)
    found = pooled([one], SPEC, LABELS)
    assert found["contexts"]["carried"]["interval"] is found["lossless"]["flac -8"]["interval"] is None
    other.lossless.clear()
    assert pooled([one, other], SPEC, LABELS)["lossless"] == {}


def test_intervals_cover_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    samples, inside = [100] * 40, 0
    for _ in range(200):
        low, high = interval(list(100 * rng.normal(5, 1, 40)), samples)
        inside += low <= 5 <= high
    assert 170 <= inside <= 199


@pytest.mark.parametrize(
    ("channels", "coupling", "labels"),
    [(2, "autoregressive", LABELS), (2, "independent", ("left", "right")), (1, "autoregressive", ("mono",))],
)
def test_labels_say_what_is_known(channels, coupling, labels):
    assert channel_labels(AudioSpec(44100, channels, 16), coupling) == labels
